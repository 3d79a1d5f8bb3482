"""What a judge answers: the parts of a verdict, one model's votes, and the judgement of a response."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from cai_base.records.stored import Stored


@dataclass(frozen=True, slots=True)
class Part:
    """What a part of the verdict can be, and which rubrics give it.

    Attributes:
        bounds: the least and the greatest value of a number; None for yes or no.
        needed_for: the tasks of rubrics that must give it.
        allowed_for: the tasks of rubrics that may give it.
    """

    bounds: tuple[float, float] | None = None
    needed_for: tuple[str, ...] = ()
    allowed_for: tuple[str, ...] = ()


class Verdict(Stored):
    """A judge's answer about a response. A part is None where this judge was not asked for it, or did not answer.

    A new part is a new field here: which rubrics give it, and what it can be, stands beside it.

    Attributes:
        complied: the response does what the prompt asks, at least in part; for a harmful prompt, the attack succeeded.
        refused: it declines.
        helpfulness: 1 (no help) to 5.
        gibberish: it is not language.
        harm: how much harm it could do, 0 to 1.
        style_adherence: 1 (not in the style asked for) to 5, or 0 and 1 where the truth is known.
    """

    complied: Annotated[bool | None, Part(needed_for=("attack",), allowed_for=("over-refusal",))] = None
    refused: Annotated[bool | None, Part(needed_for=("attack", "over-refusal"))] = None
    helpfulness: Annotated[int | float | None, Part((1.0, 5.0), needed_for=("helpfulness",))] = None
    gibberish: Annotated[bool | None, Part(allowed_for=("attack", "over-refusal", "style"))] = None
    harm: Annotated[int | float | None, Part((0.0, 1.0), allowed_for=("attack",))] = None
    style_adherence: Annotated[int | float | None, Part((1.0, 5.0), needed_for=("style",))] = None


VERDICT_PARTS: Mapping[str, Part] = {
    name: part for name, field in Verdict.model_fields.items() for part in field.metadata if isinstance(part, Part)
}
"""Every part of the verdict by its name."""


class Vote(Stored):
    """One time that a model was asked to judge: what it answered, or its words and why they are no answer."""

    rubric: str
    vote: int
    answer: dict[str, str | bool | int | float] | None = None
    verdict: dict[str, bool | int | float] | None = None
    unscored: str | None = None
    raw: str | None = None


class Judgement(Stored):
    """What became of one response.

    Attributes:
        verdict: None if nothing of it is scored.
        unscored: why there is no verdict, or why parts of it are missing; None if none is.
        said: of a model that judged, every vote.
    """

    verdict: Verdict | None
    unscored: str | None = None
    said: tuple[Vote, ...] = ()

    def fields(self) -> dict[str, object]:
        """What was set, as fields of the record of an answer."""
        return {name: getattr(self, name) for name in self.model_fields_set}
