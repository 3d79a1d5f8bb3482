"""Agreement between several votes, or two judges, on the same answers: Krippendorff's alpha."""

import math
from collections.abc import Iterable, Sequence

from cai_base.evaluation.scoring import Scorable
from cai_base.records import Agreement


def alpha(units: Iterable[Sequence[float]]) -> float | None:
    """Krippendorff's alpha with the interval metric, which for yes and no (1 and 0) is the nominal one.

    Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability" (repository.upenn.edu/asc_papers/43): one minus the
    mean squared difference within units divided by that among all values. 1 is full agreement, 0 is chance.

    Args:
        units: for each unit its values, one per judge or vote; missing ones are left out.

    Returns:
        None if no unit has two values, or all values are the same: agreement then cannot be told from chance.
    """
    comparable = [values for values in units if len(values) > 1]
    pooled = [value for values in comparable for value in values]
    expected = _squared_differences(pooled) / (len(pooled) - 1) if pooled else 0.0
    if expected == 0:
        return None
    observed = math.fsum(_squared_differences(values) / (len(values) - 1) for values in comparable)
    return 1 - observed / expected


def _squared_differences(values: Sequence[float]) -> float:
    """The sum of squared differences over all ordered pairs."""
    centre = math.fsum(values) / len(values)
    return 2 * len(values) * math.fsum((value - centre) ** 2 for value in values)


def between_votes(answers: Iterable[Scorable]) -> dict[str, float | None]:
    """Alpha of every part of the verdict over the votes about stored answers; empty where each was judged once."""
    units: dict[str, list[list[float]]] = {}
    for answer in answers:
        if len(answer.votes) < 2:
            continue
        of_answer: dict[str, list[float]] = {}
        for vote in answer.votes:
            for part, value in (vote.verdict or {}).items():
                of_answer.setdefault(f"{part} ({vote.rubric})", []).append(float(value))
        for name, values in of_answer.items():
            units.setdefault(name, []).append(values)
    return {name: alpha(votes) for name, votes in sorted(units.items()) if any(len(values) > 1 for values in votes)}


def between_judges(answers: Iterable[Scorable]) -> dict[str, Agreement]:
    """Alpha of every part of the verdict between two judges, over the answers for which both give it.

    Args:
        answers: with the first judge's `verdict` and the second judge's judgement under `second`.
    """
    units: dict[str, list[tuple[float, float]]] = {}
    known: dict[tuple[float, float], tuple[float, float]] = {}
    for answer in answers:
        second = None if answer.second is None else answer.second.verdict
        if answer.verdict is None or second is None:
            continue
        for part, value in answer.verdict:
            other = getattr(second, part)
            if value is not None and other is not None:
                pair = (float(value), float(other))
                units.setdefault(part, []).append(known.setdefault(pair, pair))
    return {part: Agreement(alpha=alpha(values), answers=len(values)) for part, values in units.items()}
