"""How long a small run takes with one thread and with one a core, alone and beside a busy process.

    python benchmarks/threads.py [--rounds N]

The contenders are whole commands and take turns. Threads that wait for one another either spin, as OpenMP has it, or
sleep (OMP_WAIT_POLICY=PASSIVE). Writes two files under `benchmarks/results/`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from frame import Comparison, Steps, save, steps_of

SMALL = (
    "--seeds 2 --sft.steps 20 --evaluate-every 1000 --revision.prompts 24 --revision.rounds 2 --dpo.steps 40 "
    "--accept judge,rate,base,power,critique"
).split()
CONTENDERS = {
    "as it is": {},
    "one thread": {"--threads": "1"},
    "one thread a core, spinning": {"--threads": "0", "OMP_WAIT_POLICY": "ACTIVE"},
    "one thread a core, sleeping": {"--threads": "0", "OMP_WAIT_POLICY": "PASSIVE"},
}


def main() -> None:
    """Both rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    for name, busy in (("alone", 0), ("beside-another", 1)):
        row = Comparison(f"cpu-threads-{name}", f"a small run of the embedded model, {busy} other busy processes")
        row.ours = "as it is"
        row.goals = {peer: 1 / 1.2 for peer in CONTENDERS if peer != row.ours}
        with tempfile.TemporaryDirectory() as scratch, _busy(busy):
            results = Path(scratch)
            row.measure({peer: _contender(results, peer) for peer in CONTENDERS}, options.rounds, 1)
            bytes_of = {file.read_bytes() for file in results.glob("*/results.json")}
        row.equal["different results.json"] = len(bytes_of)
        save(row)


def _contender(folder: Path, name: str) -> Steps:
    settings = CONTENDERS[name]
    flags = [part for flag, value in settings.items() if flag.startswith("--") for part in (flag, value)]
    policy = {variable: value for variable, value in settings.items() if not variable.startswith("--")}
    bare = {variable: value for variable, value in os.environ.items() if not variable.startswith("OMP_")}
    runs = iter(range(1000))

    def run() -> None:
        out = str(folder / f"{name.replace(' ', '-')}-{next(runs)}")
        command = [sys.executable, "-m", "cai_base", "run", *SMALL, *flags, "--out", out]
        subprocess.run(command, env={**bare, **policy}, check=True, capture_output=True)

    return steps_of(run, warm=0)


@contextmanager
def _busy(processes: int) -> Iterator[None]:
    """Processes that do nothing but take a core each."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
