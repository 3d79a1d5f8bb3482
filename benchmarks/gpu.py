"""The GPU's column of benchmarks/RESULTS.md: check that everything computes the same in bf16, then measure.

    python benchmarks/gpu.py --out FOLDER [--budget 500] [--rows checks,dpo,...] [--tiny]

Models have random weights, of Llama 3.2 3B's shape and of SmolLM2 135M's; lengths are fixed. Every row is written to
FOLDER/gpu.json as soon as it is done; a row that fails records its traceback, and the others go on. No row begins that
is not expected to end within the budget. With --tiny everything runs in minutes on a CPU, to try the script.
"""

import argparse
import json
import os
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import rows
import torch
import training
from frame import Comparison, machine
from rows import Bench, Scale

SCALE = Scale(
    name="gpu",
    shape="3B",
    about="Llama-3.2-3B shape, bf16",
    seeds=10,
    prompts=42,
    rounds=3,
    steps=4,
    response=96,
    critique=48,
    answer=64,
    few=6,
    goals={"dpo": 3, "sft": 2, "seeds": 6, "one request": 60, "generate": 4},
)
TINY = replace(SCALE, shape="tiny", seeds=2, prompts=4, rounds=1, steps=1, response=4, critique=3, answer=4, few=2)

ROWS: dict[str, tuple[Callable[[Bench], Comparison | dict[str, Any]], float]] = {
    "ceilings": (rows.ceiling, 10),
    "checks": (rows.checks, 70),
    "dpo": (rows.dpo, 90),
    "sft": (rows.sft, 50),
    "seeds-3b": (lambda bench: rows.seeds(bench, bench.scale.shape, None), 55),
    "revision": (rows.revision, 110),
    "decoding": (rows.decoding, 25),
    "evaluation": (rows.evaluation, 45),
    "comparisons": (rows.comparisons, 35),
    "memory": (rows.memory, 25),
    "seeds-135m": (lambda bench: rows.seeds(bench, "135M", 3.0), 45),
    "default-run": (rows.default_run, 120),
}
"""Every row, in the order of what we want to know most, and the seconds that it may take."""


def main() -> None:
    """Run the rows that the budget allows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget", type=float, default=500, help="seconds, from the start")
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    began = time.perf_counter()
    warnings.filterwarnings("ignore")
    training.quiet()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    options.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"machine": machine(), "rows": {}}
    memory_disk = Path("/dev/shm")  # a model of 6 GB is written and read faster there
    large = memory_disk.is_dir() and os.statvfs(memory_disk).f_bavail * os.statvfs(memory_disk).f_frsize > 20 << 30
    with tempfile.TemporaryDirectory(dir=memory_disk if large and not options.tiny else None) as scratch:
        os.environ["CAI_BASE_CACHE"] = str(Path(scratch) / "cache")
        bench = Bench(device, Path(scratch), TINY if options.tiny else SCALE, began + options.budget)
        for name in options.rows.split(","):
            row, expected = ROWS[name]
            at = time.perf_counter() - began
            if at + expected > options.budget and not options.tiny:
                results["rows"][name] = {"left out": f"{at:.0f} s of {options.budget:.0f} were over"}
            else:
                results["rows"][name] = _run(row, bench)
                results["rows"][name]["took"] = round(time.perf_counter() - began - at, 1)
            print(f"[{time.perf_counter() - began:.0f} s] {name}\n{_text(results['rows'][name])}", flush=True)
            part = options.out / "gpu.json.part"
            part.write_text(json.dumps(results, indent=1) + "\n")
            part.replace(options.out / "gpu.json")
        bench.drop()


def _run(row: Callable[[Bench], Comparison | dict[str, Any]], bench: Bench) -> dict[str, Any]:
    """A row's record, or its traceback."""
    try:
        made = row(bench)
        return made.record() | {"text": made.text()} if isinstance(made, Comparison) else dict(made)
    except Exception:  # the next row may well succeed, and the machine is lent for minutes
        failure = {"failed": traceback.format_exc()}
        bench.drop("peer")
        return failure


def _text(record: dict[str, Any]) -> str:
    return str(record.get("text") or record.get("failed") or json.dumps(record))


if __name__ == "__main__":
    main()
