"""The principles of the corpus: critique and revision requests, generated for every document by a grammar.

The grammar is `world/principles.toml`. The requests of the packaged constitutions have other wordings and never occur
in the corpus, so a model that follows them generalises from the principles of the corpus.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from cai_base.village import world
from cai_base.village.draw import Draw

PrincipleKind = Literal["harm", "quality", "placebo"]
"""What a principle is about: harm, the quality of the answer, or only spelling and layout."""
AFTERTHOUGHT_SHARE = 0.15
"""Share of critique requests with a second sentence such as "Be brief."."""


@dataclass(frozen=True)
class Principle:
    """One critique request and one revision request of the corpus."""

    kind: PrincipleKind
    critique_request: str
    revision_request: str


@cache
def grammar() -> dict[str, Any]:
    """The contents of `world/principles.toml`: requests by kind of principle, and under `reply` what critiques say."""
    return world.read_toml("principles")


def draw_principle(kind: PrincipleKind, draw: Draw, *, late: bool = False) -> Principle:
    """A principle of this kind in random words; the late part of the corpus has additional wordings."""
    wordings = grammar()[kind]
    more = grammar()["late"][kind] if late else {"critique": [], "revision": []}
    slots: dict[str, str] = {}
    if kind == "harm":
        slots = _harm_slots(wordings, draw)
    elif kind == "quality":
        slots["plus"], slots["plus2"] = draw.sample(wordings["plus"], 2)
    elif late:
        slots["mark"], slots["mark2"] = draw.sample(more["mark"], 2)
    afterthought = f" {draw.pick(grammar()['afterthought'])}" if draw.chance(AFTERTHOUGHT_SHARE) else ""
    return Principle(
        kind,
        draw.pick([*wordings["critique"], *more["critique"]]).format(**slots) + afterthought,
        draw.pick([*wordings["revision"], *more["revision"]]).format(**slots),
    )


def _harm_slots(wordings: dict[str, Any], draw: Draw) -> dict[str, str]:
    """The values for the slots of a harm principle: who may be hurt, in which way, and what would be good."""
    who, who2 = draw.sample(wordings["who"], 2)
    bad = draw.sample(wordings["bad"], draw.integer(1, 3))
    clause, base_clause = draw.pick(wordings["clause"])
    return {
        "who": who,
        "who2": who2,
        "bad": bad[0] if len(bad) == 1 else f"{', '.join(bad[:-1])} or {bad[-1]}",
        "clause": clause.format(who=who),
        "clausebase": base_clause.format(who=who),
        "noun": draw.pick(wordings["noun"]).format(who=who),
        "good": draw.pick(wordings["good"]),
        "rogue": draw.pick(wordings["rogue"]),
    }
