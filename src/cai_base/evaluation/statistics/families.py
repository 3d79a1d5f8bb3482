"""Intervals over families of prompts as a sample: for other families of jailbreaks than those of the test set.

Prompts of one family are alike. The intervals of `intervals` treat prompts as independent, so they hold for new prompts
of *these* families. For new families, the table of seeds x prompts becomes one of seeds x family means, with seeds and
families as crossed factors, and the intervals are computed from it. They are never narrower than those for these
families. How often they cover is simulated by `benchmarks/interval_coverage.py` (docs/statistics.md).

The mean is that of the family means: with families of unequal size it is not the mean of the prompts.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from cai_base import randomness
from cai_base.evaluation.statistics import power
from cai_base.evaluation.statistics.crossed import Array, Components, Crossed, crossed
from cai_base.evaluation.statistics.intervals import (
    CONFIDENCE,
    AtConfidence,
    Bounds,
    Interval,
    from_unit,
    mover,
    of_difference,
    of_mean,
    p_value,
    score,
    symmetric,
    to_unit,
)
from cai_base.records import OverFamilies

DRAWS = 50
"""Tables that `expected_detectable` draws; the standard error of its mean is 1 to 5 % of it."""


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

    Each end is as far from the mean as the farthest of two: that of `of_mean` for the prompts, and that of the table of
    family means, the score interval for a metric with bounds and the t interval for others.
    """
    means = family_means(cells, families)
    if cells.shape[-2] == 1:
        of_families = of_mean(means, bounds)
    elif bounds is None:
        of_families = partial(symmetric, crossed(means, means.shape[-1] - 1))
    else:
        scores = partial(score, _table(to_unit(means, bounds), families))
        of_families = _scaled(scores, bounds)
    return partial(_farthest, cells, means, (of_mean(cells, bounds), of_families))


def difference_over_families(
    first: Array, second: Array, families: Sequence[str], bounds: Bounds | None
) -> AtConfidence:
    """The interval of the mean of first - second, paired by seed and prompt, with two families or more as a sample.

    Each end is as far from the difference as the farthest of these: that of `of_difference` for the prompts, that of
    the crossed t interval of the family means' differences and, for a metric with bounds, that of `mover` for the arms'
    family means.
    """
    differences, means = first - second, family_means(first - second, families)
    ways = [of_difference(first, second, bounds)]
    if differences.shape[-2] == 1:
        ways.append(of_difference(family_means(first, families), family_means(second, families), bounds))
    else:
        ways.append(partial(symmetric, _of_differences(means)))
    if differences.shape[-2] > 1 and bounds is not None:
        of_first, of_second = (to_unit(family_means(arm, families), bounds) for arm in (first, second))
        combined = mover(_table(of_first, families), _table(of_second, families), crossed(of_first - of_second))
        ways.append(_scaled(combined, (0.0, bounds[1] - bounds[0])))
    return partial(_farthest, differences, means, ways)


def _of_differences(means: Array) -> Crossed:
    """The table of the family means of differences, [..., seeds, families], with at most F - 1 degrees of freedom."""
    return crossed(means, means.shape[-1] - 1)


def _table(means: Array, families: Sequence[str]) -> Crossed:
    """The table of family means between 0 and 1, [..., seeds, families], with families as the crossed factor.

    The variance has at most F - 1 degrees of freedom. Where the mean is another, families vary as their log-odds do, or
    in proportion to m(1 - m), whichever is more: a rate that is low in few families may be high in another.
    """
    seeds, count = means.shape[-2:]
    answers = seeds * np.array([families.count(family) for family in dict.fromkeys(families)])
    yes = means.mean(-2) * answers
    no = answers - yes
    by_chance = (1 / (yes + 0.5) + 1 / (no + 0.5)).mean(-1)
    odds = np.maximum(np.log((yes + 0.5) / (no + 0.5)).var(-1, ddof=1) - by_chance, 0.0) / count
    return replace(crossed(means, count - 1), prompts_odds=odds)


def _scaled(unit: AtConfidence, bounds: Bounds) -> AtConfidence:
    return lambda confidence: from_unit(unit(confidence), bounds)


def _farthest(cells: Array, means: Array, ways: Sequence[AtConfidence], confidence: float) -> Interval:
    """The interval around the mean of family means whose ends are the farthest of several intervals.

    Args:
        ways: the first is around the mean of the cells, the others around that of the family means.
    """
    of_cells, centre = cells.mean((-2, -1)), means.mean((-2, -1))
    centres = (of_cells, *[centre] * (len(ways) - 1))
    ends = [way(confidence) for way in ways]
    below = np.max([middle - low for middle, (low, _) in zip(centres, ends, strict=True)], axis=0)
    above = np.max([high - middle for middle, (_, high) in zip(centres, ends, strict=True)], axis=0)
    return centre - below, centre + above


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
    detectable = None
    if len(means) > 1:
        detectable = power.of_interval(interval, figure.mean, float(_of_differences(means).freedom))
    return figure.model_copy(update={"p_value": p_value(interval), "minimum_detectable": detectable})


def expected_detectable(components: Components, seeds: int, families: Sequence[str]) -> float | None:
    """`power.expected` with families as a sample; None as for `mean_figure`.

    The mean over `DRAWS` drawn tables of what each says that it detects. Families do not differ in the difference, as
    they hardly do in the studies of docs/findings.md; where they do, less is detected.

    Args:
        components: of the paired differences of two independent arms with rates of 1/2, over two or more `seeds`.
        families: of each prompt.
    """
    if not _are_sample(families):
        return None
    draw = randomness.stream("power over families")
    shape = (DRAWS, seeds, len(families))

    def arm() -> Array:
        deviations = (
            (components.seed, (DRAWS, seeds, 1)),
            (components.prompt, (DRAWS, 1, len(families))),
            (components.rest, shape),
        )
        return sum((math.sqrt(part / 2) * draw.standard_normal(size) for part, size in deviations), np.full(shape, 0.5))

    first, second = arm(), arm()
    means = family_means(first - second, families)
    ends = difference_over_families(first, second, families, (0.0, 1.0))(CONFIDENCE)
    farther = np.maximum(*(abs(end - means.mean((-2, -1))) for end in ends))
    degrees = _of_differences(means).freedom
    return float(np.mean([power.detectable(*one) for one in zip(farther.tolist(), degrees.tolist(), strict=True)]))


def _are_sample(families: Sequence[str]) -> bool:
    return 1 < len(set(families)) < len(families)


def _figure(cells: Array, families: Sequence[str], interval: AtConfidence, limits: Bounds | None) -> OverFamilies:
    low, high = (float(end) for end in interval(CONFIDENCE))
    if limits is not None:
        low, high = max(low, limits[0]), min(high, limits[1])
    return OverFamilies(families=len(set(families)), mean=float(family_means(cells, families).mean()), ci95=(low, high))
