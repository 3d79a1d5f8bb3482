"""Intervals of a mean, or of a difference of two arms, over other seeds and other prompts.

They were chosen by their coverage in simulation (`benchmarks/interval_coverage.py`, docs/method.md).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from scipy import optimize, special

from cai_base.evaluation.statistics.crossed import Array, Crossed, crossed

CONFIDENCE = 0.95
Bounds = tuple[float, float]
Interval = tuple[Array, Array]
"""Low and high."""

AtConfidence = Callable[[float], Interval]

HALVINGS = 40
"""Of the range in which an end of an interval is sought."""

LEAST_P = 1e-6
"""p values are not told apart below this."""


def of_mean(cells: Array, bounds: Bounds | None) -> AtConfidence:
    """The interval of the mean of tables [..., seeds, prompts], over seeds and prompts; over prompts of a single seed.

    Args:
        bounds: the least and greatest a value can be; None where there are none.
    """
    if cells.shape[-2] == 1:
        return partial(_one_seed, cells[..., 0, :], bounds)
    if bounds is None:
        return partial(_symmetric, crossed(cells))
    score = partial(_score, crossed(_unit(cells, bounds)))
    return lambda confidence: _from_unit(score(confidence), bounds)


def of_difference(first: Array, second: Array, bounds: Bounds | None) -> AtConfidence:
    """The interval of the mean of first - second, paired by seed and prompt; over prompts of a single seed.

    Of values without bounds it is the crossed t interval of the differences. Of values with bounds it is the wider, at
    each end, of that interval and of the one put together from the two arms' own.
    """
    if bounds is None:
        return of_mean(first - second, None)
    one, two, width = _unit(first, bounds), _unit(second, bounds), bounds[1] - bounds[0]
    differences = one - two
    if first.shape[-2] == 1:
        single = partial(_one_seed_difference, differences[..., 0, :])
        return lambda confidence: _from_unit(single(confidence), (0.0, width))
    together = recovered(crossed(one), crossed(two), crossed(differences))
    symmetric = two_more(differences)

    def interval(confidence: float) -> Interval:
        lows, highs = zip(symmetric(confidence), together(confidence), strict=True)
        low, high = np.maximum(np.minimum(*lows), -1.0), np.minimum(np.maximum(*highs), 1.0)
        return _from_unit((low, high), (0.0, width))

    return interval


def p_value(interval: AtConfidence, null: float = 0.0) -> float:
    """The p value that goes with an interval: the least level at which it excludes `null`.

    Args:
        interval: of one table, without leading axes.
    """

    def inside(log_level: float) -> float:
        low, high = interval(1.0 - float(np.exp(log_level)))
        return 1.0 if low <= null <= high else -1.0

    least, most = float(np.log(LEAST_P)), float(np.log(1.0 - 1e-9))
    if inside(least) < 0:
        return LEAST_P
    if inside(most) > 0:
        return 1.0
    return float(np.exp(optimize.bisect(inside, least, most, xtol=1e-4)))


def _unit(cells: Array, bounds: Bounds) -> Array:
    return (cells - bounds[0]) / (bounds[1] - bounds[0])


def _from_unit(interval: Interval, bounds: Bounds) -> Interval:
    low, high = (bounds[0] + (bounds[1] - bounds[0]) * end for end in interval)
    return low, high


def _t(confidence: float, freedom: Array | float) -> Array:
    quantile: Array = special.stdtrit(freedom, 0.5 + confidence / 2)
    return quantile


def _symmetric(table: Crossed, confidence: float) -> Interval:
    half = _t(confidence, table.freedom) * np.sqrt(table.variance)
    return table.mean - half, table.mean + half


def _score(table: Crossed, confidence: float) -> Interval:
    """Wilson's score interval with the variance of crossed factors, for values between 0 and 1.

    All means m are kept that the observed mean is within t standard errors of, where the variance is the one it would
    have at m: like Wilson's, V(m) is 0 at 0 and 1. Prompts and the rest go with m(1 - m), as in a binomial. Seeds that
    differ by the same factor in odds differ by m(1 - m) times that: their share goes with its square. So for seeds the
    larger of the two is taken, or a rate that is low in the few seeds seen would seem low in all.

    The table counts for no more than its cells as independent yes-or-no answers; one that is all 0 or all 1, for no
    more than its prompts.
    """
    mean, size = table.mean, table.size
    spread = mean * (1 - mean)
    inside = spread > 1e-12
    scale = np.where(inside, spread, 1.0) * size
    prompts_share = np.where(inside, np.maximum(table.between_prompts / scale, 1 / size), 1 / table.prompts)
    seeds_share = np.where(inside, (table.between_seeds - table.rest) / scale, 0.0)
    yes = table.seed_means * table.prompts
    no = table.prompts - yes
    # Seeds answer the same prompts: by chance alone they differ by the rest, not by all of a binomial's spread.
    by_chance = (1 / (yes + 0.5) + 1 / (no + 0.5)).mean(-1) * np.where(inside, table.rest * size / scale, 1.0)
    odds = np.maximum(np.log((yes + 0.5) / (no + 0.5)).var(-1, ddof=1) - by_chance, 0.0) / table.seeds
    # Where no answer differs from another there is no variance that was estimated.
    t = np.where(inside, _t(confidence, table.freedom), special.ndtri(0.5 + confidence / 2))

    def keeps(m: Array) -> Array:
        binomial = m * (1 - m)
        variance = binomial * (prompts_share + np.maximum(seeds_share, odds * binomial))
        kept: Array = (m - mean) ** 2 <= t**2 * variance
        return kept

    return _end(keeps, mean, 0.0), _end(keeps, mean, 1.0)


def _end(keeps: Callable[[Array], Array], start: Array, limit: float) -> Array:
    """How far from `start` towards `limit` values are kept, by halving."""
    kept, lost = start, np.full_like(start, limit)
    for _ in range(HALVINGS):
        middle = (kept + lost) / 2
        inside = keeps(middle)
        kept, lost = np.where(inside, middle, kept), np.where(inside, lost, middle)
    return np.where(start == limit, limit, lost)


def two_more(differences: Array) -> AtConfidence:
    """The crossed t interval of differences between -1 and 1, its variance that of a table with two more prompts.

    On one of them the first arm has 1 and the second 0 in every seed, on the other it is the other way round: prompts
    on which arms differ may exist though none was asked (after Bonett and Price, J. Educ. Behav. Stat. 37, 2012).
    """
    more = np.broadcast_to([1.0, -1.0], (*differences.shape[:-1], 2))
    table = crossed(np.concatenate([differences, more], -1))
    return partial(_symmetric, replace(table, mean=differences.mean((-2, -1))))


def recovered(one: Crossed, two: Crossed, differences: Crossed) -> AtConfidence:
    """A difference's interval from the two arms' own, whose ends tell the variance there (MOVER).

    Zou and Donner, Stat. Med. 27 (2008), after Newcombe (1998): each arm's distance to its end stands for t standard
    errors, and the two are put together with the correlation of the arms' means. A negative one counts as none.
    """
    errors = np.sqrt(one.variance * two.variance)
    shared = (one.variance + two.variance - differences.variance) / 2
    correlation = np.clip(np.where(errors > 0, shared / np.where(errors > 0, errors, 1.0), 0.0), 0.0, 1.0)

    def together(a: Array, b: Array) -> Array:
        return np.sqrt(np.maximum(a**2 - 2 * correlation * a * b + b**2, 0.0))

    def interval(confidence: float) -> Interval:
        (low_one, high_one), (low_two, high_two) = _score(one, confidence), _score(two, confidence)
        low = differences.mean - together(one.mean - low_one, high_two - two.mean)
        return low, differences.mean + together(high_one - one.mean, two.mean - low_two)

    return interval


def _one_seed(values: Array, bounds: Bounds | None, confidence: float) -> Interval:
    """Over prompts, of values [..., prompts]: exact with bounds, else the t interval."""
    count = values.shape[-1]
    if bounds is None:
        half = _t(confidence, count - 1) * values.std(-1, ddof=1) / np.sqrt(count)
        return values.mean(-1) - half, values.mean(-1) + half
    return _from_unit(exact(_unit(values, bounds).sum(-1), count, confidence), bounds)


def exact(successes: Array, trials: int, confidence: float = CONFIDENCE) -> Interval:
    """Clopper and Pearson's exact interval of a binomial rate (Biometrika 26, 1934), in its beta form.

    A sum of values between 0 and 1 may stand for the successes: such values vary no more than yes-or-no answers with
    the same mean.
    """
    tail = (1 - confidence) / 2
    beta = special.betaincinv
    low = np.where(successes > 0, beta(np.maximum(successes, 1e-12), trials - successes + 1, tail), 0.0)
    high = np.where(successes < trials, beta(successes + 1, np.maximum(trials - successes, 1e-12), 1 - tail), 1.0)
    return low, high


def _one_seed_difference(differences: Array, confidence: float) -> Interval:
    """What is gained less what is lost, each with its exact interval at half the error, so that both hold together."""
    halved, count = (1 + confidence) / 2, differences.shape[-1]
    gained = exact(np.maximum(differences, 0).sum(-1), count, halved)
    lost = exact(np.maximum(-differences, 0).sum(-1), count, halved)
    return gained[0] - lost[1], gained[1] - lost[0]
