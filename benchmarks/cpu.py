"""The CPU's column of benchmarks/RESULTS.md: a model of 5M parameters in fp32 on one thread, beside its peers.

    python benchmarks/cpu.py [--rows dpo,sft,...] [--small]        (OMP_NUM_THREADS=1)

With --small, 2 seeds and 8 prompts stand for 10 and 42. Each row writes `benchmarks/results/<name>.json`. On a busy
machine read the ratios of CPU seconds, not of wall seconds.
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import rows
import torch
import training
from frame import Comparison, save
from rows import Bench, Scale

SCALE = Scale(
    name="cpu",
    shape="5M",
    about="5M model, fp32, one thread",
    seeds=10,
    prompts=42,
    rounds=3,
    steps=2,
    response=16,
    critique=8,
    answer=16,
    few=2,
    goals={"dpo": 4, "sft": 2.5, "seeds": 3.5, "one request": 15, "generate": 4},
    patience=8,
)
SMALL = replace(SCALE, seeds=2, prompts=8, rounds=2)
ROWS: dict[str, Callable[[Bench], Comparison]] = {
    "dpo": rows.dpo,
    "sft": rows.sft,
    "seeds": lambda bench: rows.seeds(bench, bench.scale.shape, None),
    "evaluation": rows.evaluation,
    "comparisons": rows.comparisons,
    "revision": rows.revision,
}


def main() -> None:
    """Run the rows that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--small", action="store_true", help="2 seeds and 8 prompts")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    training.quiet()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench("cpu", Path(scratch), SMALL if options.small else SCALE, time.perf_counter() + 3600)
        for name in options.rows.split(","):
            save(ROWS[name](bench))


if __name__ == "__main__":
    main()
