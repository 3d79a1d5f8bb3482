"""What an evaluation stores: each arm's answers to prompts, to questions in a style and to comparisons."""

from typing import Annotated

from pydantic import Field

from cai_base.records.judging import Judgement, Verdict, Vote
from cai_base.records.stored import Stored


class Answer(Stored):
    """One arm's answer to one evaluation prompt, with its verdict.

    Attributes:
        tokens: tokens of the response; None where the prompt did not fit the context and nothing was asked.
        truncated: it reached the length limit.
        logprob, opening_logprob: mean log-probability per token under the base model, of the whole answer and of its
            opening, in nats; None for an empty answer. Absent from evaluations during training.
        second: the second judge's judgement, where there is one.
        broken: whether it is broken language, by the floor that the base model's own answers set; never stored.
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
    said: tuple[Vote, ...] = ()
    logprob: float | None = None
    opening_logprob: float | None = None
    second: Judgement | None = None
    broken: Annotated[bool | None, Field(exclude=True)] = None


class StyledAnswer(Stored):
    """One arm's answer to a question in a style.

    Attributes:
        adherence: 0 or 1 in the village, where the truth is known; 1 to 5 from a judge; None if unscored.
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
    said: tuple[Vote, ...] = ()


class ComparedAnswers(Stored):
    """How probable an arm finds the better and the worse of two given answers: tokens and log-probability of each."""

    id: str
    categories: tuple[str, ...]
    tokens: dict[str, int] | None
    unscored: str | None
    logprob: dict[str, float] | None = None


class AskedArm(Stored):
    """How an evaluation asks an arm.

    Attributes:
        seeds: the seeds that have a model.
        context: tokens that the model's context holds.
        weights: hash of the base weights.
        one_model: all its seeds are one set of weights.
    """

    layout: str
    seeds: tuple[int, ...]
    context: int
    weights: str | None
    one_model: bool
