"""Power analysis of paired differences with crossed factors, from the noncentral t distribution.

`of_interval` is the least difference that a finished run detects, from the interval that is shown; `expected` the same
before a run, from assumed variance components; `needed` the seeds or prompts that detect a difference. Variance
components from few seeds are rough estimates, and so are these figures.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from scipy import optimize, special

from cai_base.evaluation.statistics.crossed import Components, Crossed, freedom
from cai_base.evaluation.statistics.intervals import CONFIDENCE, AtConfidence, mover, symmetric, wider_of
from cai_base.records import Needed

POWER = 0.8
PROMPT_SHARE, REST_SHARE = 0.1, 1.1
"""The assumed components of prompts and of the rest, as multiples of the binomial variance rate * (1 - rate). In the
studies of docs/organism.md they are 0 to 0.2 and 0.5 to 1.2."""

Detectable = Callable[[int, int], float]
"""The smallest difference that some seeds and some prompts detect."""

MOST_SEEDS, MOST_PROMPTS = 100, 100_000
"""The largest numbers that `needed` considers."""


def assumed_components(rate: float, seed_odds: float) -> Components:
    """The variance components to assume before a run, for paired differences of two arms' yes-or-no answers.

    Args:
        rate: the approximate rate of both arms; 1/2, where the variance is greatest, is the cautious assumption.
        seed_odds: the variance between seeds of the difference of their log-odds.
    """
    spread = rate * (1 - rate)
    return Components(seed=seed_odds * spread**2, prompt=PROMPT_SHARE * spread, rest=REST_SHARE * spread)


def of_interval(interval: AtConfidence, difference: float, degrees: float) -> float:
    """The smallest true difference, in the metric's unit, that an interval excludes 0 at with `POWER`.

    For a t interval it is exact: its half-width is the t quantile times the standard error, and this is the noncentral
    t's multiple of that. For one that is wider than a t interval, or not symmetric, its farther end counts, and the
    standard error is taken to be so much larger. So it is never below half the interval's width.

    Args:
        interval, difference: of one table, without leading axes, around this difference.
        degrees: degrees of freedom of the crossed t interval that it is at least as wide as.
    """
    low, high = (float(end) for end in interval(CONFIDENCE))
    return detectable(max(difference - low, high - difference), degrees)


def detectable(farther: float, degrees: float) -> float:
    """`of_interval`, from the distance of the interval's farther end."""
    return farther * _noncentrality(degrees) / _critical(degrees)


def minimum_detectable(components: Components, seeds: int, prompts: int, width: float | None = None) -> float:
    """The smallest true difference, in the metric's unit, that the crossed t interval excludes 0 at with `POWER`.

    Args:
        components: the variance components of the paired differences.
        seeds: two or more.
        width: greatest minus least possible value of a bounded metric, whose interval adds two pseudo-prompts
            (`intervals.with_pseudo_prompts`); None for an unbounded one.
    """
    if width is not None:
        components = _with_pseudo_prompts(components, prompts, width)
    error = float(np.sqrt(components.variance(seeds, prompts)))
    return _noncentrality(_freedom(components, seeds, prompts)) * error


def expected(components: Components, seeds: int, prompts: int) -> float:
    """The smallest true difference of two arms' rates that the interval of a run is expected to detect with `POWER`.

    It is `of_interval` of the interval that `intervals.of_difference` gives if all mean squares equal their expected
    values, the arms are independent, and both rates are 1/2, where it is widest.

    Args:
        components: of the paired differences, two or more `seeds` and `prompts`.
    """
    arm = _expected_table(_half(components), seeds, prompts, 0.5)
    differences = _expected_table(components, seeds, prompts, 0.0)
    widened = _expected_table(_with_pseudo_prompts(components, prompts, 1.0), seeds, prompts, 0.0)
    interval = wider_of(partial(symmetric, widened), mover(arm, arm, differences))
    return of_interval(interval, 0.0, float(widened.freedom))


def _half(components: Components) -> Components:
    """The components of one of two independent arms, from those of their difference."""
    return Components(components.seed / 2, components.prompt / 2, components.rest / 2)


def _expected_table(components: Components, seeds: int, prompts: int, mean: float) -> Crossed:
    """The table whose mean squares are the expected ones; its seeds lie evenly around the mean."""
    between_seeds = components.rest + prompts * components.seed
    places = np.linspace(-1.0, 1.0, seeds)
    seed_means = mean + places * np.sqrt(between_seeds / prompts) / places.std(ddof=1)
    return Crossed(
        seeds=seeds,
        prompts=prompts,
        mean=np.array(mean),
        seed_means=np.clip(seed_means, -1.0 if mean == 0 else 0.0, 1.0),
        between_seeds=np.array(between_seeds),
        between_prompts=np.array(components.rest + seeds * components.prompt),
        rest=np.array(components.rest),
    )


def _with_pseudo_prompts(components: Components, prompts: int, width: float) -> Components:
    return replace(components, prompt=components.prompt + 2 * width**2 / (prompts + 2))


def _freedom(components: Components, seeds: int, prompts: int) -> float:
    """Degrees of freedom if the mean squares equal their expected values."""
    between_seeds = np.asarray(components.rest + prompts * components.seed, dtype=float)
    between_prompts = np.asarray(components.rest + seeds * components.prompt, dtype=float)
    return float(freedom(between_seeds, between_prompts, np.asarray(components.rest, dtype=float), seeds, prompts))


def _noncentrality(degrees: float) -> float:
    """The true difference, in standard errors, that a two-sided t test detects with `POWER` (noncentral t)."""
    critical = _critical(degrees)
    upper = 1.4 * critical + 2  # above the root for any degrees of freedom, from 1 to infinity
    return float(optimize.brentq(lambda shift: 1 - POWER - special.nctdtr(degrees, shift, critical), 0.0, upper))


def _critical(degrees: float) -> float:
    return float(special.stdtrit(degrees, 0.5 + CONFIDENCE / 2))


def needed(detectable: Detectable, effect: float, seeds: int, prompts: int) -> Needed:
    """How many seeds with this number of prompts, and how many prompts with this number of seeds, detect `effect`.

    Args:
        detectable: the smallest difference that some seeds and some prompts detect.
        effect: the true difference to detect, in the metric's unit.

    Returns:
        None in place of a number above `MOST_SEEDS` or `MOST_PROMPTS`.
    """

    def smallest(most: int, is_enough: Callable[[int], bool]) -> int | None:
        low, high = 2, most
        if not is_enough(high):
            return None
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if is_enough(middle) else (middle + 1, high)
        return low

    return Needed(
        effect=effect,
        seeds=smallest(MOST_SEEDS, lambda number: detectable(number, prompts) <= effect),
        prompts=smallest(MOST_PROMPTS, lambda number: detectable(seeds, number) <= effect),
    )
