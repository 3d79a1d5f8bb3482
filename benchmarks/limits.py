"""What every command may take: starting, refusing, reporting, and the memory of the default run.

    python benchmarks/limits.py [--run RUN] [--times 5]      (OMP_NUM_THREADS=1)

Each is a command in a process of its own, some times in turn; written are the medians, in `benchmarks/limits.json`. On
a busy machine read the CPU seconds. Without --run it makes the default run first and measures its memory; a run that is
given is only reported on, and the memory stays what it was.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from frame import machine

FILE = Path(__file__).parent / "limits.json"
COMMAND = (sys.executable, "-m", "cai_base")


def main() -> None:
    """Measure every row and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a finished default run")
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    record: dict[str, Any] = json.loads(FILE.read_bytes()) if FILE.exists() else {}
    with tempfile.TemporaryDirectory() as scratch:
        run = options.run or Path(scratch) / "run"
        if not options.run:
            taken = _taken((*COMMAND, "run", "--out", str(run)), 0)
            record["memory"] = {"what": "the default run: most memory", "MB": round(taken["MB"]), "limit": 2000}
            record["memory"] |= {"seconds": round(taken["wall"]), "cpu": round(taken["cpu"])}
        record["rows"] = [
            _row("`cai-base --help`", (*COMMAND, "--help"), options.times, 0.3),
            _row("`import cai_base`", (sys.executable, "-c", "import cai_base"), options.times, 0.1),
            _row("a setting that does not exist", (*COMMAND, "run", "--dpo.stepz", "3"), options.times, 1.0, code=2),
            _row("`cai-base report RUN` of the default run", (*COMMAND, "report", str(run)), options.times, 3.0),
        ]
        # What the interpreter itself takes, which nobody can save.
        record["python"] = _row("`python -c pass`", (sys.executable, "-c", "pass"), options.times, 0.0)
    record["machine"] = machine()
    FILE.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=1))


def _row(what: str, command: Sequence[str], times: int, limit: float, code: int = 0) -> dict[str, Any]:
    every = [_taken(command, code) for _ in range(times + 1)][1:]  # the first reads the files from the disk
    wall, cpu = (statistics.median(one[name] for one in every) for name in ("wall", "cpu"))
    return {"what": what, "seconds": round(wall, 3), "cpu": round(cpu, 3), "limit": limit}


def _taken(command: Sequence[str], code: int) -> dict[str, float]:
    """Seconds and peak memory of one process. Raises: AssertionError if it ends with another code."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == code, f"{' '.join(command)} ended with {process.returncode}, not {code}"
    return {"wall": wall, "cpu": used.ru_utime + used.ru_stime, "MB": used.ru_maxrss / 1024}


if __name__ == "__main__":
    main()
