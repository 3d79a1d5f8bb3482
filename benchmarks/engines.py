"""Two finished runs with equal settings, one on each engine, side by side, as a Markdown table.

    python benchmarks/engines.py RUN_LOCAL RUN_TINKER

Each figure is the mean over seeds, and in brackets the least and the greatest of them.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cai_base.store import JsonObject, read_lines

METRICS = ("attack_success_rate", "refusal_rate", "over_refusal_rate", "helpfulness", "response_tokens")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs=2)
    runs: list[Path] = parser.parse_args().runs
    print("| | " + " | ".join(results(run)["engine"] for run in runs) + " |\n| --- | --- | --- |")
    for phase, name in (("sft", "loss"), ("dpo", "loss"), ("dpo", "margin"), ("dpo", "accuracy")):
        for place, when in ((0, "first"), (-1, "last")):
            row(f"{phase} {name}, {when} step", [[m[place][name] for m in metrics(run, phase)] for run in runs])
    row("dpo held-out accuracy, last step", [[m[-1]["held_out_accuracy"] for m in metrics(run, "dpo")] for run in runs])
    for name, figure in REVISION.items():
        print(f"| {name} | " + " | ".join(figure(results(run)["revision"]) for run in runs) + " |")
    for arm in ("base", "sft", "cai"):
        for metric in METRICS:
            row(f"{arm}: {metric}", [results(run)["arms"][arm][metric]["per_seed"] for run in runs])


REVISION: dict[str, Callable[[Any], str]] = {
    "preference pairs": lambda revision: str(revision["pairs"]),
    "harmful by round": lambda revision: ", ".join(f"{share:.3g}" for share in revision["harmful_by_round"]),
}


def results(run: Path) -> Any:
    """A run's results."""
    return json.loads((run / "results.json").read_bytes())


def metrics(run: Path, phase: str) -> list[list[JsonObject]]:
    """Each seed's steps."""
    return [list(read_lines(file)) for file in sorted(run.glob(f"seed-*/{phase}/metrics.jsonl"))]


def row(name: str, columns: list[list[float | None]]) -> None:
    """One line of the table."""
    cells = []
    for column in columns:
        values = [value for value in column if value is not None]
        span = f"{sum(values) / len(values):.4g} [{min(values):.4g}, {max(values):.4g}]" if values else "-"
        cells.append(span)
    print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
