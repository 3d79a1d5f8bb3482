"""Confidence intervals of a mean, and of a difference of two arms, over seeds and prompts.

The methods were chosen by their coverage in simulation (`benchmarks/interval_coverage.py`, docs/statistics.md).
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
"""An interval as a function of the confidence level."""

BISECTIONS = 40
"""Steps of the search for an end of an interval; each halves its range."""

LEAST_P = 1e-6
"""The least p value that is reported; a smaller one is raised to it."""


def of_mean(cells: Array, bounds: Bounds | None) -> AtConfidence:
    """The interval of the mean of tables [..., seeds, prompts]: over seeds and prompts, or over prompts with one seed.

    Args:
        bounds: the least and greatest possible value; None for an unbounded metric.
    """
    if cells.shape[-2] == 1:
        return partial(_one_seed, cells[..., 0, :], bounds)
    if bounds is None:
        return partial(symmetric, crossed(cells))
    table = crossed(to_unit(cells, bounds))
    return lambda confidence: from_unit(score(table, confidence), bounds)


def of_difference(first: Array, second: Array, bounds: Bounds | None) -> AtConfidence:
    """The interval of the mean of first - second, paired by seed and prompt; over prompts alone with one seed.

    For an unbounded metric it is the crossed t interval of the differences. For a bounded one two intervals are
    computed, `with_pseudo_prompts` and `mover`, and each end is the more extreme of their ends.
    """
    if bounds is None:
        return of_mean(first - second, None)
    first, second, width = to_unit(first, bounds), to_unit(second, bounds), bounds[1] - bounds[0]
    differences = first - second
    if first.shape[-2] == 1:
        single = partial(_one_seed_difference, differences[..., 0, :])
        return lambda confidence: from_unit(single(confidence), (0.0, width))
    combined = mover(crossed(first), crossed(second), crossed(differences))
    wider = wider_of(with_pseudo_prompts(differences), combined)
    return lambda confidence: from_unit(wider(confidence), (0.0, width))


def wider_of(one: AtConfidence, other: AtConfidence) -> AtConfidence:
    """Of two intervals of a difference between -1 and 1, the more extreme ends, cut off at -1 and 1."""

    def interval(confidence: float) -> Interval:
        lows, highs = zip(one(confidence), other(confidence), strict=True)
        return np.maximum(np.minimum(*lows), -1.0), np.minimum(np.maximum(*highs), 1.0)

    return interval


def freedom_of_difference(differences: Array, bounds: Bounds | None) -> float:
    """Degrees of freedom of the crossed t interval in `of_difference`.

    Args:
        differences: first - second [seeds, prompts], with two seeds and two prompts or more.
    """
    if bounds is None:
        return float(crossed(differences).freedom)
    return float(_with_pseudo_prompts(differences / (bounds[1] - bounds[0])).freedom)


def of_one_model(cells: Array) -> Array:
    """The table [..., seeds, prompts] of an arm whose seeds all sample from the same weights, such as the base model.

    Each seed has the prompts' means over all seeds, so that the arm varies over prompts alone. Its seeds differ by the
    chance of sampling; taken for variation between seeds, two of them would widen the interval of a difference without
    bound.
    """
    return np.broadcast_to(cells.mean(-2, keepdims=True), cells.shape)


def p_value(interval: AtConfidence, null: float = 0.0) -> float:
    """The p value by inversion of an interval: the least significance level at which it excludes `null`.

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


def to_unit(cells: Array, bounds: Bounds) -> Array:
    """The values on the scale from 0 to 1."""
    return (cells - bounds[0]) / (bounds[1] - bounds[0])


def from_unit(interval: Interval, bounds: Bounds) -> Interval:
    """An interval on the scale from 0 to 1, in the metric's unit."""
    low, high = (bounds[0] + (bounds[1] - bounds[0]) * end for end in interval)
    return low, high


def _t(confidence: float, freedom: Array | float) -> Array:
    quantile: Array = special.stdtrit(freedom, 0.5 + confidence / 2)
    return quantile


def symmetric(table: Crossed, confidence: float) -> Interval:
    """The t interval of the crossed variance."""
    half = _t(confidence, table.freedom) * np.sqrt(table.variance)
    return table.mean - half, table.mean + half


def score(table: Crossed, confidence: float) -> Interval:
    """Wilson's score interval with the variance of crossed factors, for values between 0 and 1.

    The interval holds every m with |observed mean - m| <= t * sqrt(V(m)), where V(m) is the variance of the observed
    mean if the true mean is m. As in Wilson's interval, V(m) is 0 at m = 0 and m = 1. Its terms depend on m as follows:

    - Prompts and the rest: proportional to m(1 - m), as a binomial variance; where `prompts_odds` is given, at least
      that times (m(1 - m))^2.
    - Seeds: the larger of two terms. One is proportional to m(1 - m). The other is proportional to (m(1 - m))^2: its
      factor is the variance of the seeds' log-odds. Without the second, a rate that is low in the few seeds of the run
      would seem low in all seeds.

    V(m) is never below the variance of as many independent yes-or-no answers as the table has cells. Where all values
    are equal, it is that of as many answers as the table has prompts.
    """
    mean, size = table.mean, table.size
    varied = table.between_seeds + table.between_prompts + table.rest > 0
    scale = np.where(varied, mean * (1 - mean), 1.0) * size
    prompts_share = np.where(varied, np.maximum(table.between_prompts / scale, 1 / size), 1 / table.prompts)
    seeds_share = np.where(varied, (table.between_seeds - table.rest) / scale, 0.0)
    yes = table.seed_means * table.prompts
    no = table.prompts - yes
    # All seeds answer the same prompts, so chance adds only the rest to their log-odds, not the full binomial variance.
    by_chance = (1 / (yes + 0.5) + 1 / (no + 0.5)).mean(-1) * np.where(varied, table.rest * size / scale, 1.0)
    odds = np.maximum(np.log((yes + 0.5) / (no + 0.5)).var(-1, ddof=1) - by_chance, 0.0) / table.seeds
    # Where all answers are equal no variance was estimated, so the quantile is the normal distribution's.
    t = np.where(varied, _t(confidence, table.freedom), special.ndtri(0.5 + confidence / 2))

    def contains(m: Array) -> Array:
        binomial = m * (1 - m)
        of_prompts = np.maximum(prompts_share, table.prompts_odds * binomial)
        variance = binomial * (of_prompts + np.maximum(seeds_share, odds * binomial))
        return np.asarray((m - mean) ** 2 <= t**2 * variance)

    return _end(contains, mean, 0.0), _end(contains, mean, 1.0)


def _end(contains: Callable[[Array], Array], start: Array, limit: float) -> Array:
    """The end of an interval between `start`, which it contains, and `limit`, by bisection."""
    inner, outer = start, np.full_like(start, limit)
    for _ in range(BISECTIONS):
        middle = (inner + outer) / 2
        is_inside = contains(middle)
        inner, outer = np.where(is_inside, middle, inner), np.where(is_inside, outer, middle)
    return np.where(start == limit, limit, outer)


def with_pseudo_prompts(differences: Array) -> AtConfidence:
    """The crossed t interval of differences between -1 and 1, with two pseudo-prompts added for the variance.

    The pseudo-prompts have the difference 1 and -1 in every seed. Without them, arms that give the same answers to all
    prompts of the run would have an interval of width 0, although they may differ on other prompts (after Bonett and
    Price, J. Educ. Behav. Stat. 37, 2012). The mean is that of the real prompts.
    """
    return partial(symmetric, _with_pseudo_prompts(differences))


def _with_pseudo_prompts(differences: Array) -> Crossed:
    pseudo = np.broadcast_to([1.0, -1.0], (*differences.shape[:-1], 2))
    table = crossed(np.concatenate([differences, pseudo], -1))
    return replace(table, mean=differences.mean((-2, -1)))


def mover(first: Crossed, second: Crossed, differences: Crossed) -> AtConfidence:
    """The interval of a difference from the score intervals of the two arms (MOVER, variance estimates recovery).

    Zou and Donner, Stat. Med. 27 (2008), after Newcombe (1998). The distance from an arm's mean to an end of its
    interval is t times a standard error. The distances of both arms are combined like standard errors of correlated
    means, with the correlation of the arms' means; a negative correlation counts as 0.
    """
    errors = np.sqrt(first.variance * second.variance)
    covariance = (first.variance + second.variance - differences.variance) / 2
    correlation = np.clip(np.where(errors > 0, covariance / np.where(errors > 0, errors, 1.0), 0.0), 0.0, 1.0)

    def combine(a: Array, b: Array) -> Array:
        return np.sqrt(np.maximum(a**2 - 2 * correlation * a * b + b**2, 0.0))

    def interval(confidence: float) -> Interval:
        (first_low, first_high), (second_low, second_high) = score(first, confidence), score(second, confidence)
        low = differences.mean - combine(first.mean - first_low, second_high - second.mean)
        return low, differences.mean + combine(first_high - first.mean, second.mean - second_low)

    return interval


def _one_seed(values: Array, bounds: Bounds | None, confidence: float) -> Interval:
    """The interval of the mean of values [..., prompts]: the exact binomial one with bounds, else the t interval."""
    count = values.shape[-1]
    if bounds is None:
        half = _t(confidence, count - 1) * values.std(-1, ddof=1) / np.sqrt(count)
        return values.mean(-1) - half, values.mean(-1) + half
    return from_unit(exact(to_unit(values, bounds).sum(-1), count, confidence), bounds)


def exact(successes: Array, trials: int, confidence: float = CONFIDENCE) -> Interval:
    """Clopper and Pearson's exact interval of a binomial rate (Biometrika 26, 1934), in its beta form.

    `successes` may be the sum of values between 0 and 1: they vary no more than yes-or-no answers with the same mean.
    """
    tail = (1 - confidence) / 2
    beta = special.betaincinv
    low = np.where(successes > 0, beta(np.maximum(successes, 1e-12), trials - successes + 1, tail), 0.0)
    high = np.where(successes < trials, beta(successes + 1, np.maximum(trials - successes, 1e-12), 1 - tail), 1.0)
    return low, high


def _one_seed_difference(differences: Array, confidence: float) -> Interval:
    """The interval of the mean of differences [..., prompts] between -1 and 1: of the gains minus that of the losses.

    Gains and losses each have an exact interval at half the error rate, so both hold with this confidence (Bonferroni).
    """
    halved, count = (1 + confidence) / 2, differences.shape[-1]
    gains = exact(np.maximum(differences, 0).sum(-1), count, halved)
    losses = exact(np.maximum(-differences, 0).sum(-1), count, halved)
    return gains[0] - losses[1], gains[1] - losses[0]
