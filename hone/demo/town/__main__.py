"""Writes the town to a folder: `python -m hone.demo.town FOLDER [--seed 7] [--volumes 1]`."""

from __future__ import annotations

import argparse
from pathlib import Path

from hone.demo.town import Town


def main() -> None:
    """Parse the arguments, write the files, print what was written."""
    parser = argparse.ArgumentParser(prog="python -m hone.demo.town", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the files go; it is created if needed")
    parser.add_argument("--seed", type=int, default=7, help="another seed is another town")
    parser.add_argument("--volumes", type=int, default=1, help="how many times the town is told in fresh words")
    options = parser.parse_args()
    for path in Town(options.seed).write(options.folder, options.volumes):
        print(f"{path}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
