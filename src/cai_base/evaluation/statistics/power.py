"""What a comparison can find: the least difference that so many seeds and prompts detect, and how many it takes.

A power analysis of paired differences with crossed factors, from the noncentral t distribution. The variances come from
a finished run or a pilot; with few seeds they are rough estimates, and so are these figures.
"""

from collections.abc import Callable

import numpy as np
from scipy import optimize, special

from cai_base.evaluation.statistics.crossed import Components, freedom
from cai_base.evaluation.statistics.intervals import CONFIDENCE
from cai_base.records import Needed

POWER = 0.8
PROMPT_SHARE, REST_SHARE = 0.1, 1.1
"""The assumed shares of prompts and of the rest in a yes-or-no answer's variance: in the studies of docs/organism.md
they are 0 to 0.2 and 0.5 to 1.2."""

MOST_SEEDS, MOST_PROMPTS = 100, 100_000
"""The largest designs that are considered."""


def planned(rate: float, seed_odds: float) -> Components:
    """The expected variances of the paired differences of two arms' yes-or-no answers, before a run.

    Args:
        rate: about which both arms' rates lie; half is the cautious assumption.
        seed_odds: the variance between seeds of the difference of their log-odds.
    """
    spread = rate * (1 - rate)
    return Components(seed=seed_odds * spread**2, prompt=PROMPT_SHARE * spread, rest=REST_SHARE * spread)


def detectable(components: Components, seeds: int, prompts: int, width: float | None = None) -> float:
    """The least true difference that a two-sided test at 5 % finds in `POWER` of such runs.

    Args:
        components: the variances of the paired differences.
        seeds: two or more.
        width: of the range of a value with bounds, whose tests count two more prompts (`intervals.two_more`).

    Returns:
        A difference in the metric's unit; infinite where none is large enough.
    """
    if width is not None:
        components = Components(components.seed, components.prompt + 2 * width**2 / (prompts + 2), components.rest)
    error = float(np.sqrt(components.variance(seeds, prompts)))
    return _noncentrality(_freedom(components, seeds, prompts)) * error


def _freedom(components: Components, seeds: int, prompts: int) -> float:
    """Degrees of freedom where the mean squares have their expected values."""
    of_seeds = components.rest + prompts * components.seed
    of_prompts = components.rest + seeds * components.prompt
    one, two, rest = (np.asarray(value, dtype=float) for value in (of_seeds, of_prompts, components.rest))
    return float(freedom(one, two, rest, seeds, prompts))


def _noncentrality(degrees: float) -> float:
    """The true difference, in standard errors, that a two-sided t test finds with `POWER` (noncentral t)."""
    critical = special.stdtrit(degrees, 0.5 + CONFIDENCE / 2)
    enough = 1.4 * critical + 2  # for one degree of freedom and for all of them
    return float(optimize.brentq(lambda shift: 1 - POWER - special.nctdtr(degrees, shift, critical), 0.0, enough))


def needed(components: Components, effect: float, seeds: int, prompts: int, width: float | None = None) -> Needed:
    """How many seeds, or how many prompts, detect `effect`, given what `detectable` takes."""

    def least(most: int, enough: Callable[[int], bool]) -> int | None:
        low, high = 2, most
        if not enough(high):
            return None
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle + 1, high)
        return low

    return Needed(
        effect=effect,
        seeds=least(MOST_SEEDS, lambda number: detectable(components, number, prompts, width) <= effect),
        prompts=least(MOST_PROMPTS, lambda number: detectable(components, seeds, number, width) <= effect),
    )
