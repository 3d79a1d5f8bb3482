"""The statistics of `results.json`, with seeds and prompts as crossed random factors.

`crossed` estimates variance components, `intervals` has the confidence intervals, `hypotheses` the tests, `power` the
power analysis. Tables have the shape [seeds, prompts], with NaN for an unscored answer and for a seed that failed.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from cai_base.evaluation.statistics import power
from cai_base.evaluation.statistics.crossed import Array, crossed, filled
from cai_base.evaluation.statistics.families import difference_figure, mean_figure
from cai_base.evaluation.statistics.hypotheses import holm, mcnemar, non_inferiority
from cai_base.evaluation.statistics.intervals import (
    CONFIDENCE,
    AtConfidence,
    Bounds,
    freedom_of_difference,
    of_difference,
    of_mean,
    of_one_model,
    p_value,
)
from cai_base.records import (
    PROMPTS,
    SEEDS_AND_PROMPTS,
    Difference,
    Interval,
    Needed,
    NonInferiority,
    Over,
    OverFamilies,
    Summary,
)

__all__ = ["Bounds", "among", "holm", "mean", "paired", "scaled", "summary"]

EQUAL = 1e-9
"""Seed means closer than this differ by rounding error only: they are means of at most some thousands of answers."""

EFFECT = 0.05
"""The effect size of `to_detect`, as a fraction of the metric's range: 5 percentage points of a rate."""


def mean(values: Sequence[float]) -> float | None:
    """The mean; None if there are no values."""
    return math.fsum(values) / len(values) if values else None


def summary(cells: Array, bounds: Bounds | None, *, one_model: bool = False, families: Sequence[str] = ()) -> Summary:
    """The mean of an arm's metric over the seeds that have a value, with its intervals.

    Args:
        cells: the metric's values [seeds, prompts].
        bounds: the least and greatest possible value; None for an unbounded metric.
        one_model: all seeds sample from the same weights, so that prompts are the only random factor: the interval is
            that of the prompts' means over seeds.
        families: of each prompt; empty if prompts have none.

    Returns:
        `ci95` is None with a single prompt; `ci95_seeds` and `std` are None with a single seed.
    """
    complete = _without_gaps(cells, bounds)
    per_seed = _by_seed(cells, complete.table)
    table = complete.table
    if one_model and len(table):
        table = table.mean(0, keepdims=True)
    over_prompts = _over_prompts(of_mean(table, bounds) if table.shape[1] > 1 else None, table.shape[0])
    over_seeds = _over_seeds(per_seed)
    over_families = mean_figure(table, complete.of(families), bounds) if table.size else None
    result = Summary(
        mean=_mean_of_scored(per_seed),
        per_seed=tuple(per_seed),
        std=over_seeds.std,
        ci95_seeds=over_seeds.interval,
        ci95=over_prompts.interval,
        ci95_over=over_prompts.over,
    )
    return result if over_families is None else result.model_copy(update={"over_families": over_families})


def among(cells: Array, bounds: Bounds) -> Summary:
    """The mean of a metric over the cells that have a value, where the others are not part of what it is about.

    `summary` fills a cell without a value, because an unscored answer would have one. Here it has none: the mean is a
    ratio, whose denominator varies too. Its interval is that of the mean of the linearised ratio (Cochran, Sampling
    Techniques, 1977, section 6.4).

    Args:
        cells: the metric's values [seeds, prompts], NaN where it has none.
        bounds: the least and greatest possible value, at which the interval ends.
    """
    present = ~np.isnan(cells)
    if not present.any():
        return summary(cells[:, :0], bounds)
    ratio = float(cells[present].mean())
    if np.ptp(cells[present]) < EQUAL:  # nothing varies: an interval for so many equal answers, not of width 0
        alike = cells[present][None, :] - ratio, (bounds[0] - ratio, bounds[1] - ratio)
        interval = _over_prompts(of_mean(*alike) if present.sum() > 1 else None, len(cells))
    else:
        deviations = np.where(present, cells - ratio, 0.0) / present.mean()
        interval = _over_prompts(of_mean(deviations, None) if cells.shape[1] > 1 else None, len(cells))
    per_seed = [mean(row[~np.isnan(row)].tolist()) for row in cells]
    over_seeds = _over_seeds(per_seed)
    around = None
    if interval.interval is not None:
        low, high = (min(max(ratio + end, bounds[0]), bounds[1]) for end in interval.interval)
        around = (low, high)
    return Summary(
        mean=ratio,
        per_seed=tuple(per_seed),
        std=over_seeds.std,
        ci95_seeds=over_seeds.interval,
        ci95=around,
        ci95_over=interval.over if around is not None else None,
    )


def paired(
    first: Array,
    second: Array,
    bounds: Bounds | None,
    binary: bool = False,
    margin: float | None = None,
    families: Sequence[str] = (),
    *,
    one_model: tuple[bool, bool] = (False, False),
) -> Difference:
    """First arm minus second, over the seeds and prompts for which both arms have a value.

    Args:
        first, second: the two arms' values [seeds, prompts], with the same seeds and prompts in the same order.
        bounds: the least and greatest possible value; None for an unbounded metric.
        binary: values are 0 or 1, so that McNemar's test applies.
        margin: the non-inferiority margin, in the metric's unit; None if non-inferiority is not tested.
        families: of each prompt; empty if prompts have none.
        one_model: as for `summary`, of each arm. If one of them is, it enters by its prompts' means over seeds:
            the chance of sampling does not count as variation between seeds.

    Returns:
        `mcnemar` is set only if `binary`, `non_inferiority` only with a `margin`.
    """
    gaps = np.where(np.isnan(first) | np.isnan(second), np.nan, 0.0)
    first, second = first + gaps, second + gaps
    complete = _without_gaps(first, bounds)
    first_table, second_table = complete.table, _without_gaps(second, bounds).table
    means = zip(_by_seed(first, first_table), _by_seed(second, second_table), strict=True)
    differences = [None if a is None or b is None else a - b for a, b in means]
    seeds, prompts = first_table.shape
    if all(one_model) and seeds:
        first_table, second_table = (table.mean(0, keepdims=True) for table in (first_table, second_table))
    elif seeds:
        first_table, second_table = (
            of_one_model(table) if single else table
            for table, single in zip((first_table, second_table), one_model, strict=True)
        )
    interval = of_difference(first_table, second_table, bounds) if prompts > 1 else None
    over_prompts, over_seeds = _over_prompts(interval, first_table.shape[0]), _over_seeds(differences)
    minimum_detectable, to_detect = _power(first_table - second_table, interval, bounds)
    difference = Difference(
        difference=_mean_of_scored(differences),
        std=over_seeds.std,
        ci95_seeds=over_seeds.interval,
        ci95=over_prompts.interval,
        ci95_over=over_prompts.over,
        p_value=None if interval is None else p_value(interval),
        minimum_detectable=minimum_detectable,
        to_detect=to_detect,
        seeds=seeds,
    )
    over_families = difference_figure(first_table, second_table, complete.of(families), bounds) if seeds else None
    if over_families is not None:
        difference = difference.model_copy(update={"over_families": over_families})
    if binary:
        tests = tuple(None if np.isnan(a - b).all() else mcnemar(a, b) for a, b in zip(first, second, strict=True))
        difference = difference.model_copy(update={"mcnemar": tests})
    if margin is not None:
        test = _non_inferiority(difference.difference, interval, margin, first_table, bounds)
        difference = difference.model_copy(update={"non_inferiority": test})
    return difference


def scaled(difference: Difference, factor: int) -> Difference:
    """The difference with everything in the metric's unit multiplied by a factor. It leaves `to_detect` out."""
    if factor == 1:
        return difference

    def ends(interval: Interval | None) -> Interval | None:
        return None if interval is None else (factor * interval[0], factor * interval[1])

    def times(value: float | None) -> float | None:
        return None if value is None else factor * value

    def times_families(figure: OverFamilies) -> OverFamilies:
        update = {
            "mean": times(figure.mean),
            "ci95": ends(figure.ci95),
            "minimum_detectable": times(figure.minimum_detectable),
        }
        return figure.model_copy(update=update)

    return difference.model_copy(
        update={
            "difference": times(difference.difference),
            "std": times(difference.std),
            "ci95_seeds": ends(difference.ci95_seeds),
            "ci95": ends(difference.ci95),
            "minimum_detectable": times(difference.minimum_detectable),
            "to_detect": None,
        }
        | ({} if difference.over_families is None else {"over_families": times_families(difference.over_families)})
    )


def _non_inferiority(
    difference: float | None, interval: AtConfidence | None, margin: float, table: Array, bounds: Bounds | None
) -> NonInferiority | None:
    if interval is None or difference is None:
        return None
    constant = np.full_like(table, 0.0 if bounds is None else bounds[1])
    return non_inferiority(difference, interval, margin, of_difference(constant, constant, bounds))


def _by_seed(cells: Array, table: Array) -> list[float | None]:
    """The mean of every row of the table, and None for the seeds of `cells` that have no value and so no row."""
    rows = iter(table.tolist())
    return [None if np.isnan(row).all() else mean(next(rows)) for row in cells]


def _mean_of_scored(per_seed: Sequence[float | None]) -> float | None:
    return mean([value for value in per_seed if value is not None])


class _Complete(NamedTuple):
    """A table without gaps.

    Attributes:
        prompts: which of the original table's prompts it has.
    """

    table: Array
    prompts: npt.NDArray[np.bool_]

    def of(self, families: Sequence[str]) -> list[str]:
        """The families of its prompts."""
        return [family for family, present in zip(families, self.prompts, strict=False) if present]


def _without_gaps(cells: Array, bounds: Bounds | None) -> _Complete:
    """The table without the seeds and prompts that have no value; every other gap is filled with its expected value.

    Means, intervals and tests are all of this one table, so that they agree.
    """
    scored = ~np.isnan(cells)
    return _Complete(filled(cells[scored.any(1)], bounds), np.asarray(scored.any(0)))


class _OverPrompts(NamedTuple):
    interval: Interval | None
    over: Over | None


def _over_prompts(interval: AtConfidence | None, seeds: int) -> _OverPrompts:
    """The 95 % interval, and the factors that it is over."""
    if interval is None:
        return _OverPrompts(None, None)
    low, high = interval(CONFIDENCE)
    return _OverPrompts((float(low), float(high)), SEEDS_AND_PROMPTS if seeds > 1 else PROMPTS)


class _OverSeeds(NamedTuple):
    std: float | None
    interval: Interval | None


def _over_seeds(per_seed: Sequence[float | None]) -> _OverSeeds:
    """Sample standard deviation and 95 % t interval over the seeds that have a value; None with fewer than two."""
    values = [value for value in per_seed if value is not None]
    centre = mean(values)
    if centre is None or len(values) < 2:
        return _OverSeeds(None, None)
    std = _sample_std(values)
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1)) * std / math.sqrt(len(values))
    return _OverSeeds(std, (centre - half, centre + half))


def _sample_std(values: Sequence[float]) -> float:
    """The sample standard deviation; exactly 0 for values that differ by rounding error only."""
    if max(values) - min(values) < EQUAL:
        return 0.0
    centre = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))


def _power(
    differences: Array, interval: AtConfidence | None, bounds: Bounds | None
) -> tuple[float | None, Needed | None]:
    """The minimum detectable difference, and the seeds or prompts that detect `EFFECT`.

    Both are None with fewer than two seeds or two prompts; the second also for an unbounded metric. With other seeds or
    prompts the interval is taken to be as many times as wide as the crossed t interval as it is here.
    """
    seeds, prompts = differences.shape
    if interval is None or seeds < 2 or prompts < 2:
        return None, None
    minimum = power.of_interval(interval, float(differences.mean()), freedom_of_difference(differences, bounds))
    if bounds is None:
        return minimum, None
    components, width = crossed(differences).components, bounds[1] - bounds[0]
    times = minimum / power.minimum_detectable(components, seeds, prompts, width)

    def detectable(seeds: int, prompts: int) -> float:
        return times * power.minimum_detectable(components, seeds, prompts, width)

    return minimum, power.needed(detectable, EFFECT * width, seeds, prompts)
