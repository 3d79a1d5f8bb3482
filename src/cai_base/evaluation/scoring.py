"""Stored answers without their texts, for figures: those of a large run do not fit into memory with them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from cai_base.evaluation.fluency import is_broken, likelihood
from cai_base.records import Answer, Floor, Judgement, Verdict, Vote


class Scorable(Protocol):
    """What figures use of an answer: an `Answer` has it, and a `ScoredAnswer`."""

    @property
    def id(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def family(self) -> str | None: ...
    @property
    def tokens(self) -> int | None: ...
    @property
    def verdict(self) -> Verdict | None: ...
    @property
    def unscored(self) -> str | None: ...
    @property
    def votes(self) -> tuple[Vote, ...]: ...
    @property
    def logprob(self) -> float | None: ...
    @property
    def elsewhere_logprob(self) -> float | None: ...
    @property
    def second(self) -> Judgement | None: ...
    @property
    def broken(self) -> bool | None: ...


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """An answer without its texts; the attributes are those of `Answer`. Of votes only the verdicts are kept."""

    id: str
    kind: str
    family: str | None
    tokens: int | None
    verdict: Verdict | None
    unscored: str | None
    votes: tuple[Vote, ...]
    logprob: float | None
    elsewhere_logprob: float | None
    second: Judgement | None
    broken: bool | None


class Scorer:
    """Makes answers into `ScoredAnswer`. Equal verdicts and strings are one object: a run has few different ones."""

    def __init__(self, floor: Floor | None) -> None:
        self._floor = floor
        self._strings: dict[str, str] = {}
        self._verdicts: dict[tuple[object, ...], Verdict] = {}
        self._votes: dict[tuple[object, ...], tuple[Vote, ...]] = {}
        self._seconds: dict[tuple[object, ...], Judgement] = {}

    def each(self, answers: Iterable[Answer]) -> list[ScoredAnswer]:
        """The answers, each with `broken` by the floor."""
        return [self._without_texts(answer) for answer in answers]

    def _without_texts(self, one: Answer) -> ScoredAnswer:
        return ScoredAnswer(
            id=self._strings.setdefault(one.id, one.id),
            kind=self._strings.setdefault(one.kind, one.kind),
            family=None if one.family is None else self._strings.setdefault(one.family, one.family),
            tokens=one.tokens,
            verdict=self._verdict(one.verdict),
            unscored=None if one.unscored is None else self._strings.setdefault(one.unscored, one.unscored),
            votes=self._only_verdicts(one.votes),
            logprob=one.logprob,
            elsewhere_logprob=one.elsewhere_logprob,
            second=self._second(one.second),
            broken=is_broken(one.response, likelihood(one), self._floor),
        )

    def _verdict(self, verdict: Verdict | None) -> Verdict | None:
        if verdict is None:
            return None
        return self._verdicts.setdefault(_key(verdict), verdict)

    def _only_verdicts(self, votes: tuple[Vote, ...]) -> tuple[Vote, ...]:
        if not votes:
            return ()
        key = tuple((vote.rubric, *(vote.verdict or {}).items()) for vote in votes)
        known = self._votes.get(key)
        if known is None:
            plain = (Vote(rubric=vote.rubric, vote=vote.vote, verdict=vote.verdict) for vote in votes)
            known = self._votes[key] = tuple(plain)
        return known

    def _second(self, second: Judgement | None) -> Judgement | None:
        if second is None:
            return None
        key = (None if second.verdict is None else _key(second.verdict), second.unscored)
        known = self._seconds.get(key)
        if known is None:
            known = Judgement(verdict=self._verdict(second.verdict), unscored=second.unscored)
            self._seconds[key] = known
        return known


def _key(verdict: Verdict) -> tuple[object, ...]:
    return tuple(vars(verdict).values())
