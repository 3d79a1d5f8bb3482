"""Intervals over families of prompts as a sample: for other families of jailbreaks than those of the test set.

Prompts of one family are alike. The intervals of `intervals` treat prompts as independent, so they hold for new prompts
of *these* families. For new families, the table of seeds x prompts becomes one of seeds x family means, with seeds and
families as crossed factors, and the intervals are computed from it. They are never narrower than those for these
families. How often they cover is simulated by `benchmarks/interval_coverage.py` (docs/statistics.md).

The mean is that of the family means: with families of unequal size it is not the mean of the prompts.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from cai_base.evaluation.statistics import power
from cai_base.evaluation.statistics.crossed import Array, crossed
from cai_base.evaluation.statistics.intervals import (
    CONFIDENCE,
    AtConfidence,
    Bounds,
    Interval,
    of_difference,
    of_mean,
    p_value,
)
from cai_base.records import OverFamilies


def family_means(cells: Array, families: Sequence[str]) -> Array:
    """The mean of every family, [..., seeds, families], in the order in which the families occur.

    Args:
        cells: tables [..., seeds, prompts] without gaps.
        families: of each prompt.
    """
    names = list(dict.fromkeys(families))
    places = np.array([names.index(family) for family in families])
    return np.stack([cells[..., places == place].mean(-1) for place in range(len(names))], -1)


def mean_over_families(cells: Array, families: Sequence[str], bounds: Bounds | None) -> AtConfidence:
    """The interval of the mean of tables [..., seeds, prompts], with two families or more as a sample.

    Each end is as far from the mean as the farther of two: that of `of_mean` for the table of family means, with at
    most F - 1 degrees of freedom, and that of `of_mean` for the prompts.
    """
    means = family_means(cells, families)
    return partial(_farther, cells, means, of_mean(cells, bounds), of_mean(means, bounds, means.shape[-1] - 1))


def difference_over_families(
    first: Array, second: Array, families: Sequence[str], bounds: Bounds | None
) -> AtConfidence:
    """The interval of the mean of first - second, paired by seed and prompt, with two families or more as a sample.

    Each end is as far from the difference as the farther of two: that of the crossed t interval of the family means'
    differences, with at most F - 1 degrees of freedom, and that of `of_difference` for the prompts.
    """
    differences = first - second
    means = family_means(differences, families)
    prompts = of_difference(first, second, bounds)
    if differences.shape[-2] == 1:
        of_families = of_difference(family_means(first, families), family_means(second, families), bounds)
    else:
        of_families = of_mean(means, None, means.shape[-1] - 1)
    return partial(_farther, differences, means, prompts, of_families)


def _farther(
    cells: Array, means: Array, of_prompts: AtConfidence, of_families: AtConfidence, confidence: float
) -> Interval:
    """The interval around the mean of family means whose ends are the farther ones of two intervals."""
    of_cells, centre = cells.mean((-2, -1)), means.mean((-2, -1))
    (prompt_low, prompt_high), (family_low, family_high) = of_prompts(confidence), of_families(confidence)
    low = centre - np.maximum(of_cells - prompt_low, centre - family_low)
    return low, centre + np.maximum(prompt_high - of_cells, family_high - centre)


def mean_figure(cells: Array, families: Sequence[str], bounds: Bounds | None) -> OverFamilies | None:
    """An arm's mean over families as a sample; None with fewer than two families, or where each prompt is its own.

    Args:
        cells: the metric's values [seeds, prompts], without gaps.
    """
    if not _are_sample(families):
        return None
    return _figure(cells, families, mean_over_families(cells, families, bounds), bounds)


def difference_figure(
    first: Array, second: Array, families: Sequence[str], bounds: Bounds | None
) -> OverFamilies | None:
    """First arm minus second over families as a sample, with a p value; None as for `mean_figure`.

    Args:
        first, second: the arms' values [seeds, prompts], without gaps.
    """
    if not _are_sample(families):
        return None
    interval = difference_over_families(first, second, families, bounds)
    limits = None if bounds is None else (bounds[0] - bounds[1], bounds[1] - bounds[0])
    figure = _figure(first - second, families, interval, limits)
    means = family_means(first - second, families)
    detectable = power.minimum_detectable(crossed(means).components, *means.shape) if len(means) > 1 else None
    return figure.model_copy(update={"p_value": p_value(interval), "minimum_detectable": detectable})


def _are_sample(families: Sequence[str]) -> bool:
    return 1 < len(set(families)) < len(families)


def _figure(cells: Array, families: Sequence[str], interval: AtConfidence, limits: Bounds | None) -> OverFamilies:
    low, high = (float(end) for end in interval(CONFIDENCE))
    if limits is not None:
        low, high = max(low, limits[0]), min(high, limits[1])
    return OverFamilies(families=len(set(families)), mean=float(family_means(cells, families).mean()), ci95=(low, high))
