"""Statistics: seeds and prompts are crossed factors. From tables of values to the figures of `results.json`.

`crossed` takes a table's variance apart, `intervals` says how a mean would move with other seeds and other prompts,
`hypotheses` has the tests, `power` what a run can detect. Tables are [seeds, prompts], NaN where there is no value: an
answer that is unscored, or a seed that failed.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy import stats

from cai_base.evaluation.statistics import power
from cai_base.evaluation.statistics.crossed import Array, crossed, filled
from cai_base.evaluation.statistics.hypotheses import holm, mcnemar, non_inferiority
from cai_base.evaluation.statistics.intervals import CONFIDENCE, AtConfidence, Bounds, of_difference, of_mean, p_value

__all__ = ["Bounds", "holm", "mean", "paired", "summary"]

EQUAL = 1e-9
"""Figures that differ by less are equal: they are shares of at most some thousand answers."""

BOTH, PROMPTS = "seeds and prompts", "prompts"
"""What an interval is over: one of a single seed says nothing about other seeds."""

EFFECT = 0.05
"""To detect so much of a metric's range is what `to_detect` is about: 5 points of a rate."""


def mean(values: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return math.fsum(values) / len(values) if values else None


def summary(cells: Array, bounds: Bounds | None, *, one_model: bool = False) -> dict[str, Any]:
    """An arm's figure over the seeds that have a value.

    Args:
        cells: the table of its values.
        bounds: the least and greatest a value can be; None where there are none.
        one_model: the seeds are draws from one model, so that only prompts are a factor: the interval is that of
            the prompts' means.

    Returns:
        The mean of the seeds' means, these, their standard deviation; the 95 % interval and what it is over; and the
        95 % t interval over seeds alone, prompts held fixed (None without two seeds).
    """
    per_seed = _per_seed(cells)
    found = {"mean": mean([value for value in per_seed if value is not None]), "per_seed": per_seed}
    table = _kept(cells, bounds)
    if one_model and len(table):
        table = table.mean(0, keepdims=True)
    interval = of_mean(table, bounds) if table.shape[1] > 1 else None
    return found | _over_seeds(per_seed) | _interval(interval, table.shape[0])


def paired(
    first: Array, second: Array, bounds: Bounds | None, binary: bool = False, margin: float | None = None
) -> dict[str, Any]:
    """First minus second over the seeds that both have a value of, on the same prompts.

    Args:
        first, second: the two arms' tables of values, seed by seed and prompt by prompt the same.
        binary: values are 0 or 1, so that McNemar's test applies.
        margin: how much less still counts as no worse; None where that is not asked.

    Returns:
        As of `summary`, `difference` for the mean; the p value that goes with the interval; the least difference that
        such a run would find in four of five cases, and what it takes to detect 5 % of the metric's range; McNemar's
        test of every seed; non-inferiority.
    """
    both = np.where(np.isnan(first) | np.isnan(second), np.nan, 0.0)
    first, second = first + both, second + both
    differences = [
        None if a is None or b is None else a - b for a, b in zip(_per_seed(first), _per_seed(second), strict=True)
    ]
    one, two = _kept(first, bounds), _kept(second, bounds)
    interval = of_difference(one, two, bounds) if one.shape[1] > 1 else None
    difference = mean([value for value in differences if value is not None])
    found = {
        "difference": difference,
        **_over_seeds(differences),
        **_interval(interval, one.shape[0]),
        "p_value": None if interval is None else p_value(interval),
        **_power(one - two, bounds),
        "seeds": one.shape[0],
    }
    if binary:
        found["mcnemar"] = [
            None if np.isnan(a - b).all() else asdict(mcnemar(a, b)) for a, b in zip(first, second, strict=True)
        ]
    if margin is not None:
        alike = np.full_like(one, 0.0 if bounds is None else bounds[1])
        found["non_inferiority"] = (
            None
            if interval is None or difference is None
            else asdict(non_inferiority(difference, interval, margin, of_difference(alike, alike, bounds)))
        )
    return found


def _per_seed(cells: Array) -> list[float | None]:
    return [mean(row[~np.isnan(row)].tolist()) for row in cells]


def _kept(cells: Array, bounds: Bounds | None) -> Array:
    """The table without the seeds that have no value, and without gaps."""
    return filled(cells[~np.isnan(cells).all(1)], bounds)


def _interval(interval: AtConfidence | None, seeds: int) -> dict[str, Any]:
    if interval is None:
        return {"ci95": None, "ci95_over": None}
    low, high = interval(CONFIDENCE)
    return {"ci95": [float(low), float(high)], "ci95_over": BOTH if seeds > 1 else PROMPTS}


def _over_seeds(per_seed: Sequence[float | None]) -> dict[str, Any]:
    """Sample standard deviation and 95 % t interval over the seeds that have a value; None without two."""
    values = [value for value in per_seed if value is not None]
    centre = mean(values)
    if centre is None or len(values) < 2:
        return {"std": None, "ci95_seeds": None}
    spread = _spread(values)
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1)) * spread / math.sqrt(len(values))
    return {"std": spread, "ci95_seeds": [centre - half, centre + half]}


def _spread(values: Sequence[float]) -> float:
    """The sample standard deviation; exactly 0 for values that are equal but for rounding."""
    if max(values) - min(values) < EQUAL:
        return 0.0
    centre = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))


def _power(differences: Array, bounds: Bounds | None) -> dict[str, Any]:
    seeds, prompts = differences.shape
    if seeds < 2 or prompts < 2:
        return {"minimum_detectable": None, "to_detect": None}
    components = crossed(differences).components
    width = None if bounds is None else bounds[1] - bounds[0]
    least = power.detectable(components, seeds, prompts, width)
    wanted = None if width is None else asdict(power.needed(components, EFFECT * width, seeds, prompts, width))
    return {"minimum_detectable": least, "to_detect": wanted}
