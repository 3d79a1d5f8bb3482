"""Checks whether the interpreter can compare: it gets pairs of responses of which the better one is known."""

from collections.abc import Sequence
from importlib import resources

from cai_base import randomness
from cai_base.dialogue import prompt_tokens
from cai_base.engines import Tokenizer, Usage
from cai_base.inputs import Inputs
from cai_base.inputs.comparisons import SolvedComparison
from cai_base.method.comparing import (
    ORDERS,
    Question,
    compare,
    comparing_cost,
    comparison_text,
    probability,
)
from cai_base.method.interpreter import Interpreter
from cai_base.reading import Entry
from cai_base.run.preflight.outcome import Check
from cai_base.settings.feedback import Feedback

RIGHT = 0.75
"""Below this share of correct comparisons, labels are mostly noise."""
BIAS = 0.15
"""There is a position bias if the mean probability of (A) differs from 1/2 by more than this."""


def known_comparisons(data: str) -> list[SolvedComparison]:
    """The packaged comparisons with known answers, in `english` or in the embedded `world`'s language."""
    text = (resources.files("cai_base") / "data" / data / "known_comparisons.jsonl").read_text(encoding="utf-8")
    return [SolvedComparison.model_validate_json(line) for line in text.splitlines()]


class Comparing(Entry):
    """How well a model compares.

    Attributes:
        known, right: the number of comparisons, and of those in which the better response is the more probable.
        first_letter: mean probability of (A) over single comparisons; 0.5 means no position bias.
        order_agreement: share of questions with the same answer in both orders.
    """

    known: int
    right: int
    first_letter: float
    order_agreement: float


def measure(
    interpreter: Interpreter, inputs: Inputs, settings: Feedback, known: Sequence[SolvedComparison], seed: int
) -> Comparing:
    """Measure the known comparisons, each under as many of the run's requests as are used to label a pair."""
    number = min(settings.principles, len(inputs.comparison_requests))
    questions = []
    for place, one in enumerate(known):
        draw = randomness.stream(seed, "preflight", "comparison", place)
        for request in draw.permutation(len(inputs.comparison_requests))[:number]:
            questions.append(
                Question(
                    interpreter.model(None),
                    one.prompt,
                    (one.better, one.worse),
                    inputs.comparison_requests[int(request)],
                    (seed, "preflight", "comparison", place, int(request)),
                )
            )
    comparisons, _ = compare(interpreter, inputs.solved_comparisons, settings, questions)
    by_pair = [comparisons[start : start + number] for start in range(0, len(comparisons), number)]
    first = sum(one.first_as_a + 1 - one.first_as_b for one in comparisons) / (len(ORDERS) * len(comparisons))
    alike = sum((one.first_as_a >= 0.5) == (one.first_as_b >= 0.5) for one in comparisons) / len(comparisons)
    right = sum(probability(of_pair) > 0.5 for of_pair in by_pair)
    return Comparing(known=len(known), right=right, first_letter=first, order_agreement=alike)


def feedback_cost(inputs: Inputs, settings: Feedback, known: Sequence[SolvedComparison], tokenizer: Tokenizer) -> Usage:
    """An upper bound on the tokens of `check_feedback`: every comparison as long as under the longest request."""
    requests, usage = inputs.comparison_requests, Usage()
    for one in known:
        questions = [Question(None, one.prompt, (one.better, one.worse), request, ()) for request in requests]
        texts = [comparison_text(question, 0, inputs.solved_comparisons, "", settings) for question in questions]
        longest = max(len(prompt_tokens(tokenizer, text)) for text in texts)
        usage.add(comparing_cost(settings, min(settings.principles, len(requests)), longest))
    return usage


def check_feedback(
    interpreter: Interpreter, inputs: Inputs, settings: Feedback, known: Sequence[SolvedComparison], seed: int
) -> Check:
    """Check whether the interpreter prefers the better of two responses, and whether it has a position bias.

    If the interpreter is the SFT adapter, which is not trained yet, the base model is checked instead.
    """
    result = measure(interpreter, inputs, settings, known, seed)
    finding = (
        f"{result.right} of {result.known} known comparisons right; mean probability of (A) {result.first_letter:.0%}; "
        f"both orders agree in {result.order_agreement:.0%}"
    )
    if result.right < RIGHT * result.known:
        do = "labels of this interpreter are mostly noise: give another --interpreter, or other --feedback.examples"
        return Check("feedback", "warned", finding, do)
    if abs(result.first_letter - 0.5) > BIAS:
        do = "both orders are averaged, but the labels are weaker for it: give other --feedback.examples"
        return Check("feedback", "warned", finding, do)
    return Check("feedback", "passed", finding)
