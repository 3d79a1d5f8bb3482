"""Fluency: the likelihood of answers under the base model, and the answers whose language it shows to be broken.

The base model is fluent, so an answer it finds far less likely than any of its own is hardly language: "It soap, a lamb
cloth." The limits of this measure:

- Fluent is not right, and unlikely is not broken. A refusal is less likely to the base model than an answer, so means
  per token are compared, and an answer is broken only `MARGIN` below nearly all of the base's own answers.
- A mean hides a short break in a long text. Only the opening, where preference training breaks language first, is
  measured separately.
- Large models find endless repetition likely. It is detected from the words instead (`text.repeats_itself`).

Fluent language about another subject is not broken. Where no judge can say how much an answer helps, each is also
measured after another prompt: one that says something about its own prompt is less likely there.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cai_base.dialogue import Dialogue
from cai_base.engines import Datum, Engine, Usage
from cai_base.records import Answer, Floor
from cai_base.text import repeats_itself

OPENING = 8
"""The length of an answer's opening, in tokens."""

QUANTILE = 0.01
"""The share of the base's own answers that are less likely than its floor."""

MARGIN = 1.0
"""An answer this many nats per token below the floor counts as broken; docs/evaluation.md says how it was chosen."""


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Mean log-probabilities of an answer under the base model, in nats per token; None for an empty answer.

    Attributes:
        answer: of the whole answer. The end of the answer is not counted: a truncated one has none.
        opening: of its first `OPENING` tokens, or of all if it is shorter.
    """

    answer: float | None
    opening: float | None


def measure(engine: Engine, dialogue: Dialogue, texts: Sequence[tuple[str, str]]) -> list[Likelihood]:
    """How likely the base model finds each response to its prompt, after the few-shot prefix.

    Args:
        texts: prompts and responses.
    """
    parts: list[tuple[int, int]] = []
    data: list[Datum] = []
    for index, (question, response) in enumerate(texts):
        if not response:
            continue
        prompt, whole = dialogue.answer_tokens(engine.tokenizer, question, response)
        tokens = whole[: engine.context_length - len(prompt)]  # text tokenised again may take more than were sampled
        for part, length in enumerate((len(tokens), min(OPENING, len(tokens)))):
            if length:
                weights = (0.0,) * len(prompt) + (1.0 / length,) * length
                data.append(Datum((*prompt, *tokens[:length]), weights))
                parts.append((index, part))
    means = engine.compute_logprobs({None: data})[None] if data else []
    by_part = {part: round(mean, 4) for part, mean in zip(parts, means, strict=True)}
    return [Likelihood(by_part.get((index, 0)), by_part.get((index, 1))) for index in range(len(texts))]


def fluency_cost(questions: Sequence[int], response_tokens: int, *, elsewhere: bool) -> Usage:
    """An upper bound on the base model's tokens for measuring one response to each question.

    Args:
        questions: tokens of each question with the few-shot prefix before it.
        response_tokens: tokens of the longest response.
        elsewhere: see `Ruler`.
    """
    once = Usage(prefilled=2 * sum(questions) + len(questions) * (response_tokens + OPENING))  # the answer, its opening
    return once * (2 if elsewhere else 1)


@dataclass(frozen=True, slots=True)
class Ruler:
    """The base model, under which the fluency of answers is measured.

    Attributes:
        engine: the engine with the base model.
        dialogue: the few-shot turns that it reads before a prompt.
        elsewhere: whether it also measures each answer after another of the prompts.
    """

    engine: Engine
    dialogue: Dialogue
    elsewhere: bool = False

    def measured(self, answers: Sequence[Answer]) -> list[Answer]:
        """The answers with their mean log-probabilities under the base model."""
        likelihoods = measure(self.engine, self.dialogue, [(one.prompt, one.response) for one in answers])
        measured = [
            one.model_copy(update={"logprob": likelihood.answer, "opening_logprob": likelihood.opening})
            for one, likelihood in zip(answers, likelihoods, strict=True)
        ]
        return self._measured_elsewhere(measured) if self.elsewhere else measured

    def _measured_elsewhere(self, answers: Sequence[Answer]) -> list[Answer]:
        """The answers with their mean log-probabilities after another prompt: that half of all prompts further on,
        since neighbours are often of one family."""
        prompts = list(dict.fromkeys(one.prompt for one in answers))
        if len(prompts) < 2:
            return list(answers)
        other = {prompt: prompts[place - len(prompts) // 2] for place, prompt in enumerate(prompts)}
        likelihoods = measure(self.engine, self.dialogue, [(other[one.prompt], one.response) for one in answers])
        return [
            one.model_copy(update={"elsewhere_logprob": likelihood.answer})
            for one, likelihood in zip(answers, likelihoods, strict=True)
        ]


def floor(base: Iterable[Likelihood]) -> Floor | None:
    """The floor that the base model's own answers set; None if none of them was measured."""
    answers, openings = [], []
    for likelihood in base:
        if likelihood.answer is not None and likelihood.opening is not None:
            answers.append(likelihood.answer)
            openings.append(likelihood.opening)
    if not answers:
        return None
    return Floor(answer=_low_quantile(answers), opening=_low_quantile(openings))


def _low_quantile(values: Sequence[float]) -> float:
    return float(np.quantile(values, QUANTILE, method="lower"))


def is_broken(response: str, likelihood: Likelihood, floor: Floor | None, margin: float = MARGIN) -> bool | None:
    """Whether a response is broken language; None if it was not measured, or if there is no floor."""
    if floor is None or likelihood.answer is None or likelihood.opening is None:
        return None
    return (
        likelihood.answer < floor.answer - margin
        or likelihood.opening < floor.opening - margin
        or repeats_itself(response)
    )


def likelihood(answer: Answer) -> Likelihood:
    """The likelihood that is stored with an answer."""
    return Likelihood(answer.logprob, answer.opening_logprob)


def mark_broken(answers: Iterable[Answer], floor: Floor | None) -> list[Answer]:
    """The answers, each with its field `broken` set."""
    return [a.model_copy(update={"broken": is_broken(a.response, likelihood(a), floor)}) for a in answers]
