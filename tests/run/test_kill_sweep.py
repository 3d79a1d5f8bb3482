"""Thirty moments of `scripts/kill-sweep`: every command that writes is ended, and continued to the same bytes."""

import os
import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts/kill-sweep"
COMMANDS = "run,evaluate,style,report,export,compare"


def test_commands_that_are_ended_at_thirty_moments_are_continued_to_the_same_bytes(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPT, "--moments", "30", "--commands", COMMANDS, "--work", tmp_path]
    sweep = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "src"}, check=False
    )
    assert sweep.returncode == 0, f"{sweep.stdout[-4000:]}\n{sweep.stderr[-2000:]}"
    total = re.search(r"^(\d+) moments with seed 0, (\d+) ended with the same bytes", sweep.stdout, re.MULTILINE)
    assert total is not None
    made, same = map(int, total.groups())
    assert made == same
    assert made >= 25, "five fill a small filesystem, which not every machine may mount"
