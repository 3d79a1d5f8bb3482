"""How far several votes, or two judges, agree about the same answers: Krippendorff's alpha."""

import math
from collections.abc import Iterable, Mapping, Sequence

from cai_base.store import Record


def alpha(units: Iterable[Sequence[float]]) -> float | None:
    """Krippendorff's alpha with the interval metric, which for yes and no (1 and 0) is the nominal one.

    Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability" (repository.upenn.edu/asc_papers/43): one minus the
    mean squared difference within units, over that among all values. 1 is agreement, 0 what chance would give.

    Args:
        units: for each unit the values that were given to it; missing ones are left out.

    Returns:
        None if no unit has two values, or all values are the same: nothing then tells agreement from habit.
    """
    paired = [values for values in units if len(values) > 1]
    everything = [value for values in paired for value in values]
    expected = _differences(everything) / (len(everything) - 1) if everything else 0.0
    if expected == 0:
        return None
    observed = math.fsum(_differences(values) / (len(values) - 1) for values in paired)
    return 1 - observed / expected


def _differences(values: Sequence[float]) -> float:
    """The sum of squared differences over all ordered pairs."""
    centre = math.fsum(values) / len(values)
    return 2 * len(values) * math.fsum((value - centre) ** 2 for value in values)


def between_votes(records: Iterable[Record]) -> Mapping[str, float | None]:
    """Alpha of every part of the verdict over the votes about stored answers; nothing where each was judged once."""
    units: dict[str, list[list[float]]] = {}
    for record in records:
        of_this: dict[str, list[float]] = {}
        for said in record.get("said", ()):
            for part, value in said.get("verdict", {}).items():
                of_this.setdefault(f"{part} ({said['rubric']})", []).append(float(value))
        for name, values in of_this.items():
            units.setdefault(name, []).append(values)
    return {name: alpha(found) for name, found in sorted(units.items()) if any(len(votes) > 1 for votes in found)}


def between_judges(records: Iterable[Record]) -> Mapping[str, Record]:
    """Alpha of every part of the verdict between two judges, over the answers for which both give it, and how many.

    Args:
        records: answers with the first judge's `verdict` and what the second found under `second`.
    """
    units: dict[str, list[list[float]]] = {}
    for record in records:
        first, second = record["verdict"] or {}, record["second"]["verdict"] or {}
        for part, value in first.items():
            other = second.get(part)
            if value is not None and other is not None:
                units.setdefault(part, []).append([float(value), float(other)])
    return {part: {"alpha": alpha(found), "answers": len(found)} for part, found in units.items()}
