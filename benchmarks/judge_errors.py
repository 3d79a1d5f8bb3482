"""How often rates corrected for a judge's errors cover the truth: an exact judge's verdicts, with errors planted.

    python benchmarks/judge_errors.py RUN [--repeats 200]

RUN is a run of the embedded model whose judge is exact. The answers of these arms, all seeds and prompts, are the
population: the truth is an arm's rate over all of them, and its change from the base model's. Each repeat draws seeds
and prompts from it without replacement, plants errors in their verdicts at a known sensitivity and specificity,
measures the judge on labelled answers of all arms, with errors at the same rates, and computes the raw and the
corrected interval as a run does. The last lines are a Markdown table.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from cai_base import arms, paths
from cai_base.errors import UserError
from cai_base.evaluation.measures import Metric
from cai_base.evaluation.statistics.crossed import Array
from cai_base.evaluation.statistics.intervals import CONFIDENCE, of_difference, of_mean
from cai_base.evaluation.statistics.misclassification import (
    Confusion,
    Estimate,
    corrected,
    corrected_difference,
)
from cai_base.evaluation.tasks.prompts import METRICS
from cai_base.inputs.kinds import ANSWER_FILES
from cai_base.records import Answer
from cai_base.run.stored import records_of
from cai_base.store import Run

JUDGES = ((0.95, 0.95), (0.8, 0.9), (0.7, 0.75))
"""Sensitivity and specificity of the judge."""
LABELLED = (60, 240)
"""Answers that people labelled."""
ARMS = (arms.BASE, arms.SFT, arms.FULL)
DRAWN = ((3, 24), (3, 48))
"""Seeds and prompts of a run."""
RATES = ("attack_success_rate", "refusal_rate")
UNIT = (0.0, 1.0)
REMEDY = f"give a finished run of the embedded model with the arms {', '.join(ARMS)}"
Tables = Mapping[str, Array]
"""The exact values of an arm `[seeds, prompts]`."""


def population(directory: Path, metric: Metric) -> dict[str, Array]:
    """The exact values of every arm; prompts without a verdict in some arm are left out."""
    run, tables = Run.open(directory), {}
    for arm in ARMS:
        rows = []
        for seed in range(len(list(directory.glob("seed-*")))):
            files = [paths.answers(seed, arm, kind) for kind in ANSWER_FILES]
            answers = [one for file in files for one in records_of(run, file, Answer)]
            rows.append([metric.value(one) for one in answers if one.kind in metric.kinds])
        tables[arm] = np.array([row for row in rows if row], dtype=float)
        if len(tables[arm].shape) != 2 or tables[arm].shape != tables[ARMS[0]].shape:
            raise UserError(f"{directory}: has no answers of {arm} for {metric.label.lower()} in every seed; {REMEDY}")
    whole = ~np.any([np.isnan(table).any(0) for table in tables.values()], axis=0)
    least = max(DRAWN)
    if (there := (len(tables[ARMS[0]]), int(whole.sum()))) < least or there[1] < least[1]:
        raise UserError(
            f"{directory}: has {there[0]} seeds and {there[1]} prompts with verdicts for {metric.label.lower()}, and "
            f"{least[0]} and {least[1]} are drawn at once; {REMEDY}"
        )
    return {arm: table[:, whole] for arm, table in tables.items()}


def judged(truth: Array, sensitivity: float, specificity: float, generator: np.random.Generator) -> Array:
    """The verdicts of a judge that errs at these rates, each answer by itself."""
    is_right = generator.random(truth.shape) < np.where(truth == 1, sensitivity, specificity)
    return np.where(is_right, truth, 1 - truth)


@dataclass(frozen=True, slots=True)
class Design:
    """One cell of the simulation.

    Attributes:
        shape: seeds and prompts of a run.
        errors: sensitivity and specificity of the judge.
        labelled: answers that people labelled.
    """

    shape: tuple[int, int]
    errors: tuple[float, float]
    labelled: int


def coverage(tables: Tables, design: Design, repeats: int, seed: int) -> dict[tuple[str, str, str], float]:
    """How often each interval, raw and corrected, holds the truth: of an arm's rate, and of its change."""
    generator, (seeds, prompts) = np.random.default_rng(seed), tables[arms.BASE].shape
    every_answer = np.concatenate([table.ravel() for table in tables.values()])
    rows, columns = (
        np.array([generator.choice(n, k, replace=False) for _ in range(repeats)])
        for n, k in zip((seeds, prompts), design.shape, strict=True)
    )
    said = {
        arm: judged(table[rows[:, :, None], columns[:, None, :]], *design.errors, generator)
        for arm, table in tables.items()
    }
    labels = generator.choice(every_answer, (repeats, design.labelled)) == 1
    verdicts = judged(labels.astype(float), *design.errors, generator) == 1
    confusions = [
        Confusion.of(zip(*pair, strict=True)) for pair in zip(labels.tolist(), verdicts.tolist(), strict=True)
    ]
    held: dict[tuple[str, str, str], list[bool]] = {}
    for arm, cells in said.items():
        base, truth = said[arms.BASE], tables[arm].mean()
        figures = {"rate": (truth, cells.mean((1, 2)), of_mean(cells, UNIT), corrected)}
        if arm != arms.BASE:
            change, means = truth - tables[arms.BASE].mean(), (cells - base).mean((1, 2))
            figures["difference"] = (change, means, of_difference(cells, base, UNIT), corrected_difference)
        for of, (wanted, means, interval, by) in figures.items():
            lows, highs = interval(CONFIDENCE)
            held[of, arm, "raw"] = ((lows <= wanted) & (wanted <= highs)).tolist()
            estimates = [
                by(Estimate(float(mean), float(low), float(high)), confusion)
                for mean, low, high, confusion in zip(means, lows, highs, confusions, strict=True)
            ]
            known = [one for one in estimates if one is not None]
            held[of, arm, "corrected"] = [one.low <= wanted <= one.high for one in known]
    return {key: sum(one) / len(one) for key, one in held.items()}


def main() -> None:
    """Simulate every cell, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--repeats", type=int, default=200)
    options = parser.parse_args()
    shares: dict[tuple[str, tuple[float, float], int, str], list[float]] = {}
    for name in RATES:
        tables = population(options.run, METRICS[name])
        rates = ", ".join(f"{arm} {table.mean():.3f}" for arm, table in tables.items())
        seeds, prompts = tables[arms.BASE].shape
        print(f"{name}: {seeds} seeds, {prompts} prompts; {rates}", flush=True)
        for number, (shape, errors, labelled) in enumerate(product(DRAWN, JUDGES, LABELLED)):
            cell = coverage(tables, Design(shape, errors, labelled), options.repeats, number)
            for (of, _, which), share in cell.items():
                shares.setdefault((of, errors, labelled, which), []).append(share)
    print("| of | sensitivity, specificity | labelled | cells | raw: least, mean | corrected: least, mean |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for of, errors, labelled in product(("rate", "difference"), JUDGES, LABELLED):
        columns = []
        for which in ("raw", "corrected"):
            every = shares[of, errors, labelled, which]
            columns.append(f"{min(every):.1%}, {sum(every) / len(every):.1%}".replace("%", " %"))
        print(f"| {of} | {errors[0]}, {errors[1]} | {labelled} | {len(every)} | {columns[0]} | {columns[1]} |")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"judge_errors: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
