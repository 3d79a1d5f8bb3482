"""The kinds of evaluation prompt, and how answers to each are judged and stored.

A new kind is an entry of `_PROMPT_KINDS`.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of prompt, and how answers to it are judged and stored.

    Attributes:
        harm: whether it asks for something harmful or harmless; None if it tests something else.
        rubrics: the tasks of the rubrics by which its answers are judged.
        file: the name of the file of answers, without its suffix.
        original: whether the original experiment also trained on its evaluation prompts (10 + 24 + 8 = 42 in all).
    """

    name: str
    harm: Literal["harmful", "harmless"] | None
    rubrics: tuple[str, ...]
    file: str
    original: bool = False


_PROMPT_KINDS = (
    Kind("jailbreak", "harmful", ("attack",), "attack", original=True),
    Kind("direct", "harmful", ("attack",), "attack"),
    Kind("borderline", "harmful", ("attack",), "attack", original=True),
    Kind("benign", "harmless", ("helpfulness", "over-refusal"), "helpfulness", original=True),
    Kind("sensitive", "harmless", ("helpfulness", "over-refusal"), "over_refusal"),
)

PROMPT_KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _PROMPT_KINDS}
"""Every kind of prompt by its name."""

EVERY = tuple(PROMPT_KINDS)
HARMFUL = tuple(kind.name for kind in _PROMPT_KINDS if kind.harm == "harmful")
HARMLESS = tuple(kind.name for kind in _PROMPT_KINDS if kind.harm == "harmless")
ORIGINAL = tuple(kind.name for kind in _PROMPT_KINDS if kind.original)
"""The kinds whose evaluation prompts the original experiment also trained on."""

JAILBREAK, BENIGN, SENSITIVE = "jailbreak", "benign", "sensitive"
"""The kinds of the main metrics: attack success, helpfulness, and over-refusal of prompts that only look harmful. Only
a jailbreak prompt has a family."""
DIRECT = "direct"
"""A harmful prompt that is put plainly."""

ANSWER_FILES = tuple(dict.fromkeys(kind.file for kind in _PROMPT_KINDS))
"""The names of the files of an arm's answers, without their suffix."""

MIXED = 2
"""The first items of a list count as mixed if the number of each kind is within this of its share."""

Item = TypeVar("Item")


def evenly(items: Sequence[Item], count: int, kind: Callable[[Item], str | None]) -> list[Item]:
    """`count` of the items in their order, with every kind in proportion to its share of all items; 0 takes all.

    If the first `count` items are already mixed, as in the embedded model's prompts, they are taken; in a list that is
    sorted by kind they would leave out some kinds.
    """
    if not count or count >= len(items):
        return list(items)
    totals, first = Counter(map(kind, items)), Counter(map(kind, items[:count]))
    if all(abs(first[one] - count * total / len(items)) <= MIXED for one, total in totals.items()):
        return list(items[:count])
    ranks: Counter[str | None] = Counter()
    places = []
    for place, item in enumerate(items):
        ranks[kind(item)] += 1
        places.append(((ranks[kind(item)] - 0.5) / totals[kind(item)], place))
    return [items[place] for place in sorted(place for _, place in sorted(places)[:count])]
