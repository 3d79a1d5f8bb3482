"""The comparison of two responses, with an interpreter whose log-probabilities and reasonings are written here."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import pytest
from small_tokenizers import Letters

from cai_base.engines import Adapter, Datum, Engine, Sample, SampleRequest
from cai_base.inputs import packaged
from cai_base.inputs.comparisons import ComparisonRequest, SolvedComparison
from cai_base.method.comparing import Question, compare, probability
from cai_base.method.interpreter import Interpreter, itself
from cai_base.run.preflight.feedback import check_feedback
from cai_base.settings.feedback import Feedback

REQUEST = ComparisonRequest(name="kind", text="Which answer is kinder, (A) or (B)?")
SOLVED = (SolvedComparison(prompt="Tea?", better="Gladly.", worse="Never."),)
KNOWN = [SolvedComparison(prompt=f"Question {n}?", better="A good answer.", worse="A bad answer.") for n in range(8)]


class Interpreting:
    """Gives the letter (A) the probability that a function of the text before it says."""

    tokenizer = Letters()

    def __init__(self, first: Callable[[str], float]) -> None:
        self.first = first
        self.texts: list[str] = []

    def compute_logprobs(self, data: Mapping[Adapter | None, Sequence[Datum]]) -> dict[Adapter | None, list[float]]:
        return {model: [self._logprob(one) for one in of_model] for model, of_model in data.items()}

    def _logprob(self, datum: Datum) -> float:
        text = self.tokenizer.decode(datum.tokens)
        before, letter = text[: -len(" (A)")], text[-len(" (A)") :]
        self.texts.append(before)
        return math.log(self.first(before) if letter == " (A)" else 1 - self.first(before))

    def sample(self, requests: Sequence[SampleRequest]) -> list[Sample]:
        return [Sample(" It is kind.", tuple(map(ord, " It is kind.")), "stop") for _ in requests]


def interpreter(engine: Interpreting) -> Interpreter:
    return itself(cast(Engine, engine))


def pair(text: str) -> str:
    """The question at the end, behind the solved comparisons."""
    return text.rsplit("Question:", 1)[1]


def likes_the_good_one(text: str) -> float:
    return 0.99 if pair(text).index("good") < pair(text).index("bad") else 0.01


def asked(engine: Interpreting, **settings: Any) -> Any:
    question = Question(None, "Help?", ("A good answer.", "A bad answer."), REQUEST, (0, "test"))
    ((one,), (tokens,)) = compare(interpreter(engine), SOLVED, Feedback.model_validate(settings), [question])
    return one, tokens


def test_a_preference_for_a_letter_decides_nothing_over_both_orders() -> None:
    engine = Interpreting(lambda text: 0.9)
    one, tokens = asked(engine)
    assert probability([one]) == pytest.approx(0.5)
    assert tokens == 0
    assert probability([asked(Interpreting(likes_the_good_one))[0]]) == pytest.approx(0.99)
    first, second = dict.fromkeys(engine.texts)
    assert "(A) Gladly." in first
    assert "(B) Gladly." in second, "the solved comparisons are turned as well"
    assert all("Gladly" in text and "The better answer is (" in text for text in engine.texts)


def test_a_preference_for_a_letter_keeps_the_side_of_a_label_and_draws_it_towards_one_half() -> None:
    """The letter and the merit of the good answer add up in the log-odds, as docs/method.md has it."""

    def sigmoid(log_odds: float) -> float:
        return 1 / (1 + math.exp(-log_odds))

    def label(letter: float, merit: float = 2.0) -> float:
        def first(text: str) -> float:
            return sigmoid(letter + (merit if likes_the_good_one(text) > 0.5 else -merit))

        return probability([asked(Interpreting(first))[0]])

    labels = [label(letter) for letter in (0.0, 2.0, 4.0, 8.0)]
    assert labels[0] == pytest.approx(sigmoid(2.0))
    assert labels == sorted(labels, reverse=True)
    assert 0.5 < labels[-1] < 0.51, "the same merit, under a large preference for a letter, says next to nothing"
    assert labels[2] == pytest.approx((sigmoid(4.0 + 2.0) + 1 - sigmoid(4.0 - 2.0)) / 2)
    assert label(-4.0) == pytest.approx(labels[2]), "whichever letter it is"
    assert label(4.0, merit=-2.0) == pytest.approx(1 - labels[2])


def test_after_a_chain_of_thought_probabilities_are_clamped_to_40_to_60_percent() -> None:
    engine = Interpreting(likes_the_good_one)
    one, tokens = asked(engine, **{"chain-of-thought": True})
    assert (one.first_as_a, one.first_as_b) == (0.6, 0.6)
    assert one.thoughts == ("It is kind.", "It is kind.")
    assert tokens == 2 * len(" It is kind.")
    assert all("Reasoning: It is kind.\nThe better answer is" in text for text in engine.texts)
    assert not any("Gladly" in text for text in engine.texts), "no solved comparison stands before a reasoning"
    assert asked(Interpreting(lambda text: 0.55), **{"chain-of-thought": True})[0].first_as_a == pytest.approx(0.55)


@pytest.mark.parametrize(
    ("first", "outcome", "says"),
    [
        (
            likes_the_good_one,
            "passed",
            "8 of 8 known comparisons right; mean probability of (A) 50%; both orders agree",
        ),
        (lambda text: 1 - likes_the_good_one(text), "warned", "0 of 8 known comparisons right"),
        (lambda text: 0.9 if likes_the_good_one(text) > 0.5 else 0.6, "warned", "mean probability of (A) 75%"),
    ],
)
def test_preflight_reports_known_orders_and_position_bias(
    first: Callable[[str], float], outcome: str, says: str
) -> None:
    inputs = packaged("world").model_copy(update={"comparison_requests": (REQUEST,), "solved_comparisons": SOLVED})
    check = check_feedback(interpreter(Interpreting(first)), inputs, Feedback(), KNOWN, 0)
    assert check.outcome == outcome
    assert says in check.finding
