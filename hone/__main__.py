"""`python -m hone`: the command line where no `hone` script is on the path."""

from __future__ import annotations

import sys

from hone.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
