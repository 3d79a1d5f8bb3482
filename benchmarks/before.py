"""The default run of an earlier commit and of this one, taking turns.

    python benchmarks/before.py [--commit 488aaaf] [--rounds 2]

`cai-base run` with nothing but `--out`, each in a process of its own with the environment as it is: what `make run`
does after the installation. 488aaaf is the last commit of the first edition. The earlier code needs this repository's
history; it runs with the packages that are installed now.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from frame import Comparison, Steps, Taken, save

from cai_base import arms

ROOT = Path(__file__).resolve().parents[1]
NOW = "now"


def source_of(commit: str, folder: Path) -> Path:
    """The package's code of a commit, written into `folder`."""
    archive = subprocess.run(["git", "archive", commit, "src"], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        opened.extractall(folder, filter="data")
    return folder / "src"


def runs(source: Path, folder: Path, row: Comparison, name: str) -> Steps:
    """A contender that makes default runs with the code in `source`."""

    def take(n: int) -> list[Taken]:
        out = []
        for _ in range(n):
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                command = [sys.executable, "-m", "cai_base", "run", "--out", f"{scratch}/run"]
                environment = {**os.environ, "PYTHONPATH": str(source)}
                before = os.times()
                subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
                after = os.times()
                wall = after.elapsed - before.elapsed
                cpu = sum(after[i] - before[i] for i in (2, 3))  # of children
                figures = json.loads(Path(f"{scratch}/run/results.json").read_bytes())
            attack = figures["arms"][arms.FULL]["attack_success_rate"]["mean"]
            row.equal[f"{name}: attack success of full CAI"] = round(attack, 3)
            out.append(Taken(wall, cpu))
        return out

    return take


def main() -> None:
    """The row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commit", default="488aaaf")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    before = f"commit {options.commit}"
    row = Comparison("cpu-run-before", "the default run, three seeds", ours=NOW, goals={before: 1})
    row.notes.append("The runs differ: today's has more checks before it, more figures, and a page with every answer.")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        earlier = source_of(options.commit, folder)
        contenders = {NOW: runs(ROOT / "src", folder, row, NOW), before: runs(earlier, folder, row, before)}
        row.measure(contenders, options.rounds, 1)
    save(row)


if __name__ == "__main__":
    main()
