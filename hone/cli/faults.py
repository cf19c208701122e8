"""Where every fault ends: the user's are told with their remedy, ours are written down; nobody is shown a traceback."""

from __future__ import annotations

import platform
import sys
import tempfile
import time
import traceback
from pathlib import Path

from hone import __version__
from hone.cli.style import beside, console, paragraph
from hone.core.errors import HoneError

WIDTH = 7


def show_fault(fault: HoneError) -> int:
    """Print a fault of the input or the machine on stderr, with what mends it; returns its exit status."""
    out = console(stderr=True)
    beside(out, fault.code, fault.what, width=len(fault.code) + 2, indent=0, style="bold red")
    for label, text in (("where", fault.where), ("fix", fault.fix), ("more", f"hone explain {fault.code}")):
        if text:
            beside(out, label, text, width=WIDTH)
    return fault.exit_status


def show_bug(error: Exception) -> int:
    """Save what is needed to find a fault of ours, and tell where it is; returns the exit status 1."""
    out = console(stderr=True)
    what = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    paragraph(out, "hone has a fault of its own", style="bold red")
    beside(out, "what", what, width=WIDTH)
    beside(out, "saved", str(_write(error)), width=WIDTH)
    beside(out, "report", "open an issue with that file; look it through first, for messages can quote your data", width=WIDTH)
    return 1


def _write(error: Exception) -> Path:
    """The traceback, the versions and the command line, in the folder for temporary files."""
    text = "".join(traceback.format_exception(error))
    head = f"hone {__version__}, Python {platform.python_version()}, {platform.platform()}\n{' '.join(sys.argv)}\n\n"
    stamp = time.strftime("%Y%m%d-%H%M%S")
    with tempfile.NamedTemporaryFile("w", prefix=f"hone-fault-{stamp}-", suffix=".txt", encoding="utf-8", delete=False) as file:
        file.write(head + text)
    return Path(file.name)
