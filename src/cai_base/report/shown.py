"""What a page shows of a run's texts, as its templates read it."""

from collections.abc import Sequence
from dataclasses import dataclass

from cai_base.records import Answer, Chain
from cai_base.report import examples
from cai_base.report.labels import kind_label, label, marks
from cai_base.report.load import StoredRun

Marks = Sequence[tuple[str, str]]
"""A verdict in words, each with its tone: good, bad or plain."""


@dataclass(frozen=True, slots=True)
class MarkedText:
    """A response with its verdict."""

    text: str
    marks: Marks


@dataclass(frozen=True, slots=True)
class ArmText:
    """The response of an arm with its verdict; `name` is the arm's label."""

    name: str
    text: str
    marks: Marks


@dataclass(frozen=True, slots=True)
class ShownRound:
    """A round of critique and revision.

    Attributes:
        request: of the principle, for the critique.
    """

    number: int
    principle: str
    request: str
    critique: str
    revision: MarkedText


@dataclass(frozen=True, slots=True)
class ShownChain:
    """A revision chain: each response with its marks, each round with its principle's request.

    Attributes:
        pattern: the pattern of outcomes for which it was chosen.
        kind: of the prompt, in words.
        opener: the refusal opener that the original was made to begin with, if any.
        last: the last revision.
    """

    pattern: str
    seed: int
    id: str
    kind: str
    prompt: str
    opener: str | None
    outcome: str
    original: MarkedText
    rounds: Sequence[ShownRound]
    last: MarkedText


@dataclass(frozen=True, slots=True)
class ShownAnswers:
    """The arms' answers to one prompt.

    Attributes:
        pattern: the pattern of outcomes for which it was chosen.
        kind: of the prompt, in words.
    """

    pattern: str
    seed: int
    id: str
    kind: str
    prompt: str
    arms: Sequence[ArmText]


@dataclass(frozen=True, slots=True)
class ShownStyle:
    """A question in a style, with the answer of every arm."""

    style: str
    prompt: str
    arms: Sequence[ArmText]


def shown_chains(stored: StoredRun) -> list[ShownChain]:
    """The chains to read on the page."""
    return [_chain(stored, candidate) for candidate in examples.chains(stored)]


def shown_answers(stored: StoredRun) -> list[ShownAnswers]:
    """The answers to read on the page, side by side."""
    return [_answers(stored, candidate) for candidate in examples.answers(stored)]


def _chain(stored: StoredRun, candidate: examples.Candidate[Chain]) -> ShownChain:
    chain = candidate.first
    responses = [
        MarkedText(text, marks(chain.kind, verdict, unscored))
        for text, verdict, unscored in zip(chain.responses, chain.verdicts, chain.unscored, strict=True)
    ]
    return ShownChain(
        pattern=candidate.pattern,
        seed=candidate.seed,
        id=chain.id,
        kind=kind_label(chain),
        prompt=chain.prompt,
        opener=chain.refusal_opener,
        outcome=chain.outcome,
        original=responses[0],
        rounds=[
            ShownRound(number, one.principle, stored.principles.get(one.principle, ""), one.critique, revision)
            for number, (one, revision) in enumerate(zip(chain.rounds, responses[1:], strict=True), start=1)
        ],
        last=responses[-1],
    )


def _answers(stored: StoredRun, candidate: examples.Candidate[Answer]) -> ShownAnswers:
    first = candidate.first
    return ShownAnswers(
        pattern=candidate.pattern,
        seed=candidate.seed,
        id=first.id,
        kind=kind_label(first),
        prompt=first.prompt,
        arms=[
            ArmText(label(arm), one.response, marks(one.kind, one.verdict, one.unscored, one.truncated))
            for arm, one in zip(examples.arms_shown(stored), candidate.items, strict=True)
        ],
    )
