"""Power analysis of paired differences with crossed factors, from the noncentral t distribution.

`minimum_detectable` is the least difference that a run detects, `needed` the seeds or prompts that detect a difference.
The variance components come from a finished run or a pilot; from few seeds they are rough estimates, and so are these
figures.
"""

from collections.abc import Callable

import numpy as np
from scipy import optimize, special

from cai_base.evaluation.statistics.crossed import Components, freedom
from cai_base.evaluation.statistics.intervals import CONFIDENCE
from cai_base.records import Needed

POWER = 0.8
PROMPT_SHARE, REST_SHARE = 0.1, 1.1
"""The assumed components of prompts and of the rest, as multiples of the binomial variance rate * (1 - rate). In the
studies of docs/organism.md they are 0 to 0.2 and 0.5 to 1.2."""

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


def minimum_detectable(components: Components, seeds: int, prompts: int, width: float | None = None) -> float:
    """The smallest true difference, in the metric's unit, that a two-sided test at the 5 % level detects with `POWER`.

    Args:
        components: the variance components of the paired differences.
        seeds: two or more.
        width: greatest minus least possible value of a bounded metric, whose interval adds two pseudo-prompts
            (`intervals.with_pseudo_prompts`); None for an unbounded one.
    """
    if width is not None:
        components = Components(components.seed, components.prompt + 2 * width**2 / (prompts + 2), components.rest)
    error = float(np.sqrt(components.variance(seeds, prompts)))
    return _noncentrality(_freedom(components, seeds, prompts)) * error


def _freedom(components: Components, seeds: int, prompts: int) -> float:
    """Degrees of freedom if the mean squares equal their expected values."""
    between_seeds = np.asarray(components.rest + prompts * components.seed, dtype=float)
    between_prompts = np.asarray(components.rest + seeds * components.prompt, dtype=float)
    return float(freedom(between_seeds, between_prompts, np.asarray(components.rest, dtype=float), seeds, prompts))


def _noncentrality(degrees: float) -> float:
    """The true difference, in standard errors, that a two-sided t test detects with `POWER` (noncentral t)."""
    critical = special.stdtrit(degrees, 0.5 + CONFIDENCE / 2)
    upper = 1.4 * critical + 2  # above the root for any degrees of freedom, from 1 to infinity
    return float(optimize.brentq(lambda shift: 1 - POWER - special.nctdtr(degrees, shift, critical), 0.0, upper))


def needed(components: Components, effect: float, seeds: int, prompts: int, width: float | None = None) -> Needed:
    """How many seeds with this number of prompts, and how many prompts with this number of seeds, detect `effect`.

    Args:
        components, width: as for `minimum_detectable`.
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
        seeds=smallest(MOST_SEEDS, lambda number: minimum_detectable(components, number, prompts, width) <= effect),
        prompts=smallest(MOST_PROMPTS, lambda number: minimum_detectable(components, seeds, number, width) <= effect),
    )
