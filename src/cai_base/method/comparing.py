"""The comparison of two responses by the interpreter: the probability that one is better.

As in Bai et al. 2022, section 4.1. Solved comparisons stand before the question under one principle. The probability is
that of the letter (A) against the letter (B) as the next token, normalised over the two. Each pair is shown in both
orders, with the letters of the solved comparisons turned as well, and the two probabilities are averaged. So a
preference for a letter cannot decide which response is preferred, but it does draw the label towards one half.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from cai_base import dialogue, randomness
from cai_base.dialogue import COMPARISON_STOPS, OPTIONS, Compared, prompt_tokens, split_tokens
from cai_base.engines import Adapter, Datum, SampleRequest, Usage
from cai_base.inputs.comparisons import ComparisonRequest, SolvedComparison
from cai_base.method.interpreter import Interpreter
from cai_base.records import Comparison
from cai_base.settings.feedback import Feedback

CLAMP = (0.4, 0.6)
"""Least and greatest probability after a chain of thought, which else is nearly always sure (section 4.1)."""
LETTER = 4
"""The most tokens of an option's letter in its brackets."""
ORDERS = (0, 1)
"""Both orders: the first response is shown as (A), and as (B)."""


@dataclass(frozen=True, slots=True)
class Question:
    """Two responses to be compared under one principle.

    Attributes:
        model: the adapter that interprets; None is the engine's model as it is.
        address: of the draws of a reasoning.
    """

    model: Adapter | None
    prompt: str
    responses: tuple[str, str]
    request: ComparisonRequest
    address: tuple[str | int, ...]

    def pair(self, order: int) -> Compared:
        """The responses in one of the two orders."""
        return Compared(self.prompt, self.responses if order == 0 else self.responses[::-1])


@dataclass(frozen=True, slots=True)
class Thought:
    """What the interpreter reasoned, and its length in tokens."""

    text: str
    tokens: int


def comparing_cost(settings: Feedback, questions: int, length: float) -> Usage:
    """An upper bound on the tokens of comparisons, each in both orders.

    Args:
        length: tokens of the text of a comparison, its responses included.
    """
    thoughts = settings.thought_tokens if settings.chain_of_thought else 0
    comparisons = questions * len(ORDERS)
    scored = len(OPTIONS) * (length + thoughts + LETTER)
    return Usage(prefilled=round(comparisons * (scored + (length if thoughts else 0))), sampled=comparisons * thoughts)


def compare(
    interpreter: Interpreter, solved: Sequence[SolvedComparison], settings: Feedback, questions: Sequence[Question]
) -> tuple[list[Comparison], list[int]]:
    """The interpreter's comparison of every pair of responses, in both orders.

    Args:
        solved: comparisons that stand before each.

    Returns:
        One comparison a question, in order, and the number of tokens that were sampled for each.
    """
    places = [(question, order) for question in questions for order in ORDERS]
    none = [Thought("", 0)] * len(places)
    thoughts = _think(interpreter, settings, places) if settings.chain_of_thought else none
    texts = [
        comparison_text(question, order, solved, thought.text, settings)
        for (question, order), thought in zip(places, thoughts, strict=True)
    ]
    models = [question.model for question, _ in places]
    each, thought = iter(_first_letter(interpreter, models, texts)), iter(thoughts)
    comparisons, sampled = [], []
    for question in questions:
        as_a, as_b = next(each), 1 - next(each)
        if settings.chain_of_thought:
            as_a, as_b = (min(max(share, CLAMP[0]), CLAMP[1]) for share in (as_a, as_b))
        comparison = Comparison(principle=question.request.name, first_as_a=as_a, first_as_b=as_b)
        of_question = list(islice(thought, len(ORDERS)))
        if settings.chain_of_thought:
            comparison = comparison.model_copy(update={"thoughts": tuple(one.text for one in of_question)})
        comparisons.append(comparison)
        sampled.append(sum(one.tokens for one in of_question))
    return comparisons, sampled


def probability(comparisons: Sequence[Comparison]) -> float:
    """The probability that the first response is better: the mean over both orders and all principles."""
    return sum(one.first_as_a + one.first_as_b for one in comparisons) / (2 * len(comparisons))


def comparison_text(
    question: Question, order: int, solved: Sequence[SolvedComparison], thought: str, settings: Feedback
) -> str:
    """The text that is continued by a letter.

    Args:
        thought: what the interpreter reasoned before it.
    """
    pair = question.pair(order)
    if settings.chain_of_thought:
        return dialogue.reasoned(question.request.text, pair, thought)
    shots = []
    for number, one in enumerate(solved):
        place = (number + order) % len(OPTIONS)
        responses = (one.better, one.worse) if place == 0 else (one.worse, one.better)
        shots.append((Compared(one.prompt, responses), place))
    return dialogue.comparison(question.request.text, shots, pair)


def _think(interpreter: Interpreter, settings: Feedback, places: Sequence[tuple[Question, int]]) -> list[Thought]:
    """What the interpreter says about each question before it decides."""
    tokenizer = interpreter.engine.tokenizer
    samples = interpreter.engine.sample(
        [
            SampleRequest(
                adapter=question.model,
                prompt=prompt_tokens(tokenizer, dialogue.reasoning(question.request.text, question.pair(order))),
                max_tokens=settings.thought_tokens,
                temperature=settings.temperature,
                stop=COMPARISON_STOPS,
                seed=randomness.seed(*question.address, "reasoning", order),
            )
            for question, order in places
        ]
    )
    return [Thought(sample.text.strip(), len(sample.tokens)) for sample in samples]


def _first_letter(interpreter: Interpreter, models: Sequence[Adapter | None], texts: Sequence[str]) -> list[float]:
    """The probability of (A) against (B) as the continuation of each text, by its model."""
    tokenizer = interpreter.engine.tokenizer
    data: dict[Adapter | None, list[Datum]] = {}
    for model, text in zip(models, texts, strict=True):
        for place in range(len(OPTIONS)):
            before, after = split_tokens(tokenizer, text, dialogue.option(place))
            data.setdefault(model, []).append(Datum((*before, *after), (*[0.0] * len(before), *[1.0] * len(after))))
    logprobs = {model: iter(values) for model, values in interpreter.engine.compute_logprobs(data).items()}
    shares = []
    for model in models:
        first, second = next(logprobs[model]), next(logprobs[model])
        shares.append(1 / (1 + math.exp(min(second - first, 700.0))))
    return shares
