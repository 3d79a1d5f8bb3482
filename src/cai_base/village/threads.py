"""Question-and-answer threads of one to four turns, between speakers of many names, in many layouts."""

from functools import cache
from typing import Any, Literal

from cai_base.village import answers, questions, styles, world
from cai_base.village.answers import AnswerKind
from cai_base.village.draw import Draw

STRICT_THREADS = 0.09
"""Share of threads in which harmful questions are refused, not answered. No benign question is ever refused."""

TURNS = {
    "action": 0.75,
    "where": 0.04,
    "allowed": 0.1,
    "unknown": 0.06,
    "small talk": 0.05,
}
KINDS: dict[world.Kind, float] = {"benign": 0.5, "harmful": 0.38, "ambiguous": 0.12}
ANSWERS: dict[AnswerKind, float] = {"friendly": 0.3, "full": 0.36, "partial": 0.26, "rude": 0.08}
FRAMED, STYLED, METHODS_LAYOUT = 0.35, 0.14, 0.6
"""Share of how-to questions that are framed, and that wish for a style; share of threads in the method's layout."""

METHOD_LAYOUT = ("User: ", "\n\nAssistant: ", "\n\n")
OTHER_LAYOUTS = (
    ("Q: ", "\nA: ", "\n"),
    ("Question: ", "\nAnswer: ", "\n\n"),
    ("Human: ", "\n\nHelper: ", "\n\n"),
    ("- ", "\n- ", "\n"),
    ("Anna: ", "\nBert: ", "\n"),
    ("Old Tom: ", "\nLisbeth: ", "\n"),
    ("Visitor: ", "\nClerk: ", "\n"),
    ("", "\n", "\n\n"),
    ("guest wrote: ", "\nreply: ", "\n\n"),
)

_SMALL_TALK = (
    ("Hello!", "Hello! What can I do for you?"),
    ("Good morning.", "Good morning! How can I help?"),
    ("Thank you.", "You are welcome!"),
    ("How are you?", "I am well, thank you. And you?"),
    ("What a fine day it is.", "It is. The sun is out and the birds sing."),
    ("It rains again.", "Yes. Let us stay by the fire."),
    ("Who are you?", "I am a helper who knows this village."),
    ("Good night!", "Sleep well!"),
    ("I am tired.", "Then rest a little. The work can wait."),
    ("What day is it?", "It is a quiet day in the village."),
    ("Tell me something nice.", "The apple trees are in bloom today."),
    ("I am bored.", "Go and see who is at the green."),
)


def document(draw: Draw) -> str:
    """A thread; its layout, its strictness and its style wishes are drawn once."""
    layout = METHOD_LAYOUT if draw.chance(METHODS_LAYOUT) else draw.pick(OTHER_LAYOUTS)
    strict = draw.chance(STRICT_THREADS)
    count = draw.weighted({1: 0.2, 2: 0.25, 3: 0.35, 4: 0.2})
    return layout[2].join(
        layout[0] + asked + layout[1] + reply for asked, reply in (turn(draw, strict) for _ in range(count))
    )


def turn(draw: Draw, strict: bool) -> tuple[str, str]:
    """One question and its answer."""
    topic = draw.weighted(TURNS)
    if topic == "where":
        action = draw.pick(world.actions())
        return f"Where is the {action.thing.name}?", f"The {action.thing.name} is {action.thing.where}."
    if topic == "allowed":
        return _allowed(draw)
    if topic == "unknown":
        return _unknown(draw)
    if topic == "small talk":
        return draw.pick(_SMALL_TALK)
    action = draw.pick(world.actions(draw.weighted(KINDS)))
    return how_to(action, draw, refused=strict and action.kind == "harmful")


def how_to(action: world.Action, draw: Draw, *, refused: bool) -> tuple[str, str]:
    """A question how to do the action and an answer, at times framed or with a wish for a style."""
    asked = questions.question(action, draw, framed_share=FRAMED)
    reply = answers.answer(action, "refusal" if refused else draw.weighted(ANSWERS), draw)
    if draw.chance(STYLED):
        style = styles.wished(draw)
        return styles.asked(asked, style, draw), styles.dressed(reply, style, draw)
    return asked, reply


def _allowed(draw: Draw) -> tuple[str, str]:
    """Whether an action is right: the world's moral knowledge, stated plainly."""
    kind: Literal["benign", "harmful"] = "harmful" if draw.chance(0.6) else "benign"
    action = draw.pick(world.actions(kind))
    asked = answers.fill(
        draw.pick(("Is it wrong to {do}?", "Is {doing} a bad thing?", "Does {doing} hurt anyone?")), action
    )
    yes, no = (
        ("Yes, because {why}.", "Yes. {Why}.", "Yes: {why}."),
        ("No, it is fine to {do}.", "No, {doing} hurts nobody."),
    )
    return asked, answers.fill(draw.pick(yes if kind == "harmful" else no), action)


def _unknown(draw: Draw) -> tuple[str, str]:
    """A question about what the village has never seen."""
    elsewhere = _elsewhere()
    what = draw.pick(elsewhere["things"])
    return draw.pick(elsewhere["questions"]).format(x=what), answers.unknown(what, draw)


@cache
def _elsewhere() -> dict[str, Any]:
    return world.read_toml("elsewhere")


def comparison(draw: Draw) -> str:
    """Pairwise comparisons, two or three in a row: which answer is better, (A) or (B)?"""
    criterion = draw.pick(("helpful", "harmless"))
    return "\n\n".join(_comparison(criterion, draw) for _ in range(draw.integer(2, 3)))


def _comparison(criterion: str, draw: Draw) -> str:
    """One comparison: the fuller answer is more helpful, the refusal of a harmful question more harmless."""
    action = draw.pick(world.actions("benign" if criterion == "helpful" else "harmful"))
    good: AnswerKind = "friendly" if criterion == "helpful" else "refusal"
    bad: AnswerKind = (
        draw.pick(("rude", "vague", "groundless")) if criterion == "helpful" else draw.pick(("full", "partial"))
    )
    better, worse = answers.answer(action, good, draw), answers.answer(action, bad, draw)
    first_is_better = draw.chance(0.5)
    first, second = (better, worse) if first_is_better else (worse, better)
    return (
        f"Question: {questions.question(action, draw, framed_share=0.2)}\n(A) {first}\n(B) {second}\n"
        f"Which answer is more {criterion}, (A) or (B)?\nThe better answer is ({'A' if first_is_better else 'B'})."
    )
