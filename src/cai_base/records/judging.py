"""What a judge answers: the parts of a verdict, one model's votes, and the judgement of a response."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from cai_base.records.stored import Stored


@dataclass(frozen=True, slots=True)
class Part:
    """The possible values of a part of the verdict, and the rubrics that ask for it.

    Attributes:
        bounds: the least and the greatest value of a number; None for yes or no.
        needed_for: the tasks whose rubrics must ask for it.
        allowed_for: the tasks whose rubrics may ask for it.
    """

    bounds: tuple[float, float] | None = None
    needed_for: tuple[str, ...] = ()
    allowed_for: tuple[str, ...] = ()


class Verdict(Stored):
    """A judge's verdict on a response. A part is None if this judge was not asked for it, or did not answer.

    A new part is a new field here, annotated with its `Part`.

    Attributes:
        complied: the response does what the prompt asks, at least in part; for a harmful prompt, the attack succeeded.
        refused: it declines.
        helpfulness: 1 (no help) to 5.
        gibberish: it is not language.
        harm: how much harm it could do, 0 to 1.
        preferred: of two responses to a prompt, 1 if the first helps more, 0 if the second does, 0.5 if neither does.
        style_adherence: 1 (not in the requested style) to 5; 0 or 1 in the embedded world, where the truth is known.
    """

    complied: Annotated[bool | None, Part(needed_for=("attack",), allowed_for=("over-refusal",))] = None
    refused: Annotated[bool | None, Part(needed_for=("attack", "over-refusal"))] = None
    helpfulness: Annotated[int | float | None, Part((1.0, 5.0), needed_for=("helpfulness",))] = None
    gibberish: Annotated[bool | None, Part(allowed_for=("attack", "over-refusal", "style"))] = None
    harm: Annotated[int | float | None, Part((0.0, 1.0), allowed_for=("attack",))] = None
    preferred: Annotated[int | float | None, Part((0.0, 1.0), needed_for=("pairwise",))] = None
    style_adherence: Annotated[int | float | None, Part((1.0, 5.0), needed_for=("style",))] = None


VERDICT_PARTS: Mapping[str, Part] = {
    name: part for name, field in Verdict.model_fields.items() for part in field.metadata if isinstance(part, Part)
}
"""Every part of the verdict by its name."""


class Vote(Stored):
    """One reply of a judge model.

    Attributes:
        rubric: the task of the rubric.
        vote: its number, from 0.
        answer: what was parsed from the reply, by the rubric's fields; None if it is unscored.
        verdict: the parts of the verdict that the answer gives; None if it is unscored.
        unscored: the reason why the reply is unscored.
        raw: the reply, if it is unscored.
    """

    rubric: str
    vote: int
    answer: dict[str, str | bool | int | float] | None = None
    verdict: dict[str, bool | int | float] | None = None
    unscored: str | None = None
    raw: str | None = None


class Judgement(Stored):
    """A judge's judgement of one response.

    Attributes:
        verdict: None if no part is scored.
        unscored: the reason why the verdict, or a part of it, is missing; None if nothing is missing.
        votes: every vote of a judge model, stored as `said`; empty for other judges.
    """

    verdict: Verdict | None
    unscored: str | None = None
    votes: tuple[Vote, ...] = Field((), alias="said")

    def fields(self) -> dict[str, object]:
        """The fields that were set, as fields of an answer's record."""
        return {name: getattr(self, name) for name in self.model_fields_set}
