"""What an evaluation stores: each arm's answers to prompts, to questions in a style and to comparisons."""

from typing import Annotated, Literal

from pydantic import Field

from cai_base.records.judging import Judgement, Verdict, Vote
from cai_base.records.stored import Stored

NEITHER = 0.5
"""The preference of a judge that prefers neither of two responses."""


class Answer(Stored):
    """One arm's answer to one evaluation prompt, with its verdict.

    Attributes:
        id, kind, family, prompt: of the evaluation prompt.
        response: the answer, without spaces at its ends.
        verdict: the judge's; None if no part of it is scored.
        unscored: the reason why the verdict, or a part of it, is missing; None if nothing is missing.
        votes: every vote of a judge model, stored as `said`; empty for other judges.
        tokens: tokens of the response; None if the prompt did not fit the context, so that nothing was sampled.
        truncated: whether it reached the length limit.
        logprob, opening_logprob: mean log-probability per token under the base model, of the whole answer and of its
            opening, in nats; None for an empty answer. Absent from evaluations during training.
        elsewhere_logprob: the same of the whole answer after another of the prompts; only in a run whose judge cannot
            say how much an answer helps.
        second: the second judge's judgement, if there is a second judge.
        broken: whether its log-probability is below the floor set by the base model's own answers; never stored.
    """

    id: str
    kind: str
    family: str | None
    prompt: str
    response: str
    tokens: int | None
    truncated: bool
    verdict: Verdict | None
    unscored: str | None
    votes: tuple[Vote, ...] = Field((), alias="said")
    logprob: float | None = None
    opening_logprob: float | None = None
    elsewhere_logprob: float | None = None
    second: Judgement | None = None
    broken: Annotated[bool | None, Field(exclude=True)] = None


class PairwiseVerdict(Stored):
    """An arm's answer to a benign prompt beside the baseline's answer to it: which of the two helps more.

    Attributes:
        seed, arm, id: of the answer; `id` is its prompt's.
        shown_first: the judge's preference when the arm's answer is shown first: 1 for the arm's answer, 0 for the
            other, 0.5 for neither; None if the judge's reply gives none.
        shown_second: the same when the arm's answer is shown second.
        unscored: the reason why one of them is missing.
        votes: every vote of a judge model on both orders, stored as `said`; empty for other judges.
    """

    seed: int
    arm: str
    id: str
    shown_first: float | None
    shown_second: float | None
    unscored: str | None = None
    votes: tuple[Vote, ...] = Field((), alias="said")

    @property
    def preferred(self) -> float | None:
        """The mean over both orders; None if either is missing, since one alone would count a preferred place."""
        if self.shown_first is None or self.shown_second is None:
            return None
        return (self.shown_first + self.shown_second) / 2

    @property
    def outcome(self) -> Literal["win", "tie", "loss"] | None:
        """The outcome for the arm's answer; None if either order is missing.

        A win is a preference for it in both orders, or in one with a tie in the other; a loss is the same for the
        baseline's. All else is a tie, also two orders that contradict each other. With several votes an order's
        preference is the side of one half on which their mean lies.
        """
        if self.shown_first is None or self.shown_second is None:
            return None
        orders = (self.shown_first, self.shown_second)
        won, lost = (any(one > NEITHER for one in orders), any(one < NEITHER for one in orders))
        return "tie" if won == lost else "win" if won else "loss"


class StyledAnswer(Stored):
    """One arm's answer to a question in a style.

    Attributes:
        adherence: 0 or 1 in the embedded world, where the truth is known; 1 to 5 from a judge; None if unscored.
    """

    style: str
    question: str
    sample: int
    prompt: str
    response: str
    truncated: bool
    gibberish: bool | None = None
    adherence: float | None = None
    unscored: str | None = None
    votes: tuple[Vote, ...] = Field((), alias="said")


class ComparedAnswers(Stored):
    """The better and the worse of two answers under one arm: the tokens and the log-probability of each."""

    id: str
    categories: tuple[str, ...]
    tokens: dict[str, int] | None
    unscored: str | None
    logprob: dict[str, float] | None = None


class AskedTarget(Stored):
    """The run or model that an evaluation asks, as stored in its configuration.

    Attributes:
        of: the arms of a run, or one model.
        model: the name of the model, or of the run's base model.
        layout: how a model is asked; a run's arms are asked as they were there.
        seeds: of a model.
        base: the base model of a PEFT adapter.
    """

    of: Literal["run", "model"]
    model: str
    layout: str | None = None
    seeds: tuple[int, ...] | None = None
    base: str | None = None


class AskedArm(Stored):
    """How an evaluation samples from an arm.

    Attributes:
        seeds: the seeds that have a model.
        context: the length of the model's context, in tokens.
        weights: hash of the base weights.
        one_model: whether all its seeds sample from the same weights.
        notes: what a reader should know about how it is asked, one sentence each.
        commit: of a model of the hub.
    """

    layout: str
    seeds: tuple[int, ...]
    context: int
    weights: str | None
    one_model: bool
    notes: tuple[str, ...] = ()
    commit: str | None = None
