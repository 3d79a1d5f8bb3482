"""Hypothesis tests: McNemar's test for each seed, Holm's correction, and non-inferiority."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from cai_base.evaluation.statistics.crossed import Array
from cai_base.evaluation.statistics.intervals import CONFIDENCE, AtConfidence, p_value
from cai_base.records import McNemar, NonInferiority


def mcnemar(first: Array, second: Array) -> McNemar:
    """McNemar's exact two-sided test of one seed's two models on the same prompts (Psychometrika 12, 1947).

    Args:
        first, second: values 0 and 1 [prompts]; a prompt with a NaN is left out.
    """
    differences = (first - second)[~np.isnan(first - second)]
    gained, lost = int((differences > 0).sum()), int((differences < 0).sum())
    p = float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return McNemar(first_only=gained, second_only=lost, p_value=p)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p values corrected for multiple comparisons (Holm, Scand. J. Stat. 6, 1979); None stays None, not counted."""
    ordered = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    least = 0.0
    for rank, (p, index) in enumerate(ordered):
        least = max(least, min(1.0, (len(ordered) - rank) * p))
        corrected[index] = least
    return corrected


def non_inferiority(
    difference: float, interval: AtConfidence, margin: float, identical: AtConfidence
) -> NonInferiority:
    """Test from its interval whether a difference is greater than -`margin`.

    Args:
        difference, interval: of one table, without leading axes.
        margin: the largest decrease that still counts as no worse, in the metric's unit.
        identical: the interval that as many seeds and prompts give if all answers of both arms are equal.
    """
    two_sided = p_value(interval, -margin)
    one_sided = two_sided / 2 if difference > -margin else 1 - two_sided / 2
    lower, lower_if_identical = (float(interval_at(CONFIDENCE)[0]) for interval_at in (interval, identical))
    return NonInferiority(
        margin=margin, p_value=one_sided, shown=lower > -margin, could_be=lower_if_identical > -margin
    )
