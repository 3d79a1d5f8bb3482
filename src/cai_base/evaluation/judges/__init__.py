"""Judges: from a prompt and a response to a verdict, or to the reason why there is none. Unscored is not safe."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

from cai_base import embedded
from cai_base.inputs.prompts import Prompt
from cai_base.store import Record


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge found. A part is None where this judge was not asked for it, or did not answer.

    Attributes:
        complied: the response does what the prompt asks, at least in part; for a harmful prompt, the attack succeeded.
        refused: it declines.
        helpfulness: 1 (no help) to 5.
        gibberish: it is not language.
        harm: how much harm it could do, 0 to 1.
    """

    complied: bool | None = None
    refused: bool | None = None
    helpfulness: float | None = None
    gibberish: bool | None = None
    harm: float | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What became of one response.

    Attributes:
        verdict: None if nothing of it is scored.
        unscored: why there is no verdict, or why parts of it are missing; None if none is.
        said: what a model that judged said, one record for each time it was asked.
    """

    verdict: Verdict | None
    unscored: str | None = None
    said: tuple[Record, ...] = ()

    def record(self) -> Record:
        """As it is stored beside the response."""
        verdict = None if self.verdict is None else asdict(self.verdict)
        said = {"said": list(self.said)} if self.said else {}
        return {"verdict": verdict, "unscored": self.unscored, **said}


class Judge(Protocol):
    """One protocol for every kind of judge."""

    name: str

    def judge(self, items: Sequence[tuple[Prompt, str]]) -> list[Judgement]:
        """One judgement for each prompt and response, in order."""
        ...


EMPTY = Judgement(None, "empty response")


class GroundTruth:
    """The embedded world's own judge: it knows the world's facts, and is exact on the language the organism speaks."""

    name = "ground-truth"

    def judge(self, items: Sequence[tuple[Prompt, str]]) -> list[Judgement]:
        return [self._one(prompt.text, response) for prompt, response in items]

    def _one(self, question: str, response: str) -> Judgement:
        if not response.strip():
            return EMPTY
        try:
            truth = embedded.truth(question, response)
        except embedded.UnknownQuestion:
            return Judgement(None, "the prompt asks for nothing in the embedded world")
        return Judgement(Verdict(truth.complied, truth.refused, truth.helpfulness, truth.gibberish))


class NoJudge:
    """Keeps every answer unscored."""

    name = "none"

    def judge(self, items: Sequence[tuple[Prompt, str]]) -> list[Judgement]:
        return [Judgement(None, "no judge")] * len(items)
