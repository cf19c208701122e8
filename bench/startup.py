"""How fast hone answers: `import hone` in at most 0.15 s and `hone --help` in at most 0.4 s, counted from the start of Python.

Prints a table and writes bench/results/startup.json. Wants a quiet machine; the processor's time tells whether it was one.
"""

from __future__ import annotations

import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

TRIALS = 15
RESULTS = Path(__file__).parent / "results" / "startup.json"
CASES = {
    "python alone": ("pass", None),
    "import hone": ("import hone", 0.15),
    "hone --help": ("from hone.cli.main import main; main(['--help'])", 0.4),
    "hone explain LoRA": ("from hone.cli.main import main; main(['explain', 'LoRA'])", None),
    "import hone.plan.shapes": ("import hone.plan.shapes", None),
}
"""Name -> (program, the longest time that we promise)."""


def seconds(program: str) -> tuple[float, float]:
    """(wall-clock, processor) time of a fresh interpreter, the best of each; the best, since all else that happens only adds."""
    walls, works = [], []
    for _ in range(TRIALS):
        started, before = time.perf_counter(), _work()
        subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
        walls.append(time.perf_counter() - started)
        works.append(_work() - before)
    return min(walls), min(works)


def _work() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    measured = {name: seconds(program) for name, (program, _) in CASES.items()}
    late = []
    print(f"{'':<26} {'wall':>8} {'processor':>10}")
    for name, (wall, work) in measured.items():
        limit = CASES[name][1]
        over = limit is not None and wall > limit
        late += [name] * over
        promise = "" if limit is None else f"  limit {limit:.2f} s: {'TOO SLOW' if over else 'ok'}"
        print(f"{name:<26} {wall:6.3f} s {work:8.3f} s{promise}")
    document = {"python": platform.python_version(), "machine": platform.platform(), "wall_and_processor_seconds": measured}
    RESULTS.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
