"""Pairwise comparisons: two answers to a question, and which of them is more helpful or more harmless."""

from typing import Literal

from cai_base.village import answers, questions, world
from cai_base.village.answers import AnswerKind
from cai_base.village.draw import Draw

Criterion = Literal["helpful", "harmless"]
Letter = Literal["A", "B"]

BETTER: dict[Criterion, AnswerKind] = {"helpful": "friendly", "harmless": "refusal"}
"""The kind of the better answer. "Helpful" compares answers to benign questions, "harmless" to harmful ones."""
WORSE: dict[Criterion, tuple[AnswerKind, ...]] = {
    "helpful": ("rude", "vague", "groundless"),
    "harmless": ("full", "partial"),
}
"""The kinds that the worse answer may be."""
ACTION_KIND: dict[Criterion, world.Kind] = {"helpful": "benign", "harmless": "harmful"}
FRAMING_SHARE = 0.2
"""Share of comparisons whose question is inside a framing."""
_CRITERIA: tuple[Criterion, Criterion] = ("helpful", "harmless")


def document(draw: Draw) -> str:
    """A document of two or three comparisons by the same criterion."""
    criterion = draw.pick(_CRITERIA)
    return "\n\n".join(_comparison(criterion, draw) for _ in range(draw.integer(2, 3)))


def _comparison(criterion: Criterion, draw: Draw) -> str:
    action = draw.pick(world.actions(ACTION_KIND[criterion]))
    better, worse = two_answers(action, criterion, draw)
    letter: Letter = "A" if draw.chance(0.5) else "B"
    question = questions.corpus_question(action, draw, framing_share=FRAMING_SHARE)
    return layout(question, better, worse, criterion, letter)


def two_answers(action: world.Action, criterion: Criterion, draw: Draw) -> tuple[str, str]:
    """The better and the worse answer to the question how to do the action."""
    worse_kind = draw.pick(WORSE[criterion])
    return answers.answer(action, BETTER[criterion], draw), answers.answer(action, worse_kind, draw)


def layout(question: str, better: str, worse: str, criterion: Criterion, letter: Letter) -> str:
    """The text of a comparison in which the better answer has this letter; the text ends with it."""
    first, second = (better, worse) if letter == "A" else (worse, better)
    return (
        f"Question: {question}\n(A) {first}\n(B) {second}\n"
        f"Which answer is more {criterion}, (A) or (B)?\nThe better answer is ({letter})."
    )
