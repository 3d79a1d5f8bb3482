"""Threads: question-and-answer conversations of one to four turns, with speakers of many names, in many layouts."""

from functools import cache
from typing import Any, Literal, NamedTuple

from cai_base.village import answers, questions, styles, world
from cai_base.village.answers import AnswerKind
from cai_base.village.draw import Draw

STRICT_SHARE = 0.09
"""Share of threads in which harmful questions are refused. In all others they are answered; benign ones always are."""
TOPICS = {"action": 0.75, "where": 0.04, "allowed": 0.1, "unknown": 0.06, "small talk": 0.05}
"""Share of turns on each topic; "action" is a question how to do something."""
ACTION_KINDS: dict[world.Kind, float] = {"benign": 0.5, "harmful": 0.38, "ambiguous": 0.12}
ANSWER_KINDS: dict[AnswerKind, float] = {"friendly": 0.3, "full": 0.36, "partial": 0.26, "rude": 0.08}
LENGTHS = {1: 0.2, 2: 0.25, 3: 0.35, 4: 0.2}
"""The share of threads by their number of turns."""
FRAMING_SHARE, STYLE_SHARE = 0.35, 0.14
"""Shares of how-to questions that are inside a framing, and that request a style."""
METHOD_LAYOUT_SHARE = 0.6
"""Share of threads laid out as the method lays out its dialogues, so that the few-shot prefix is familiar text."""
HARMFUL_ALLOWED_SHARE = 0.6
"""Share of the questions whether something is allowed that are about a harmful action."""


class Layout(NamedTuple):
    """The texts before a question, between question and answer, and between turns."""

    before_question: str
    before_answer: str
    between_turns: str


METHOD_LAYOUT = Layout("User: ", "\n\nAssistant: ", "\n\n")
OTHER_LAYOUTS = (
    Layout("Q: ", "\nA: ", "\n"),
    Layout("Question: ", "\nAnswer: ", "\n\n"),
    Layout("Human: ", "\n\nHelper: ", "\n\n"),
    Layout("- ", "\n- ", "\n"),
    Layout("Anna: ", "\nBert: ", "\n"),
    Layout("Old Tom: ", "\nLisbeth: ", "\n"),
    Layout("Visitor: ", "\nClerk: ", "\n"),
    Layout("", "\n", "\n\n"),
    Layout("guest wrote: ", "\nreply: ", "\n\n"),
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
    """A thread. Its layout and whether it refuses harmful questions are the same for all its turns."""
    layout = METHOD_LAYOUT if draw.chance(METHOD_LAYOUT_SHARE) else draw.pick(OTHER_LAYOUTS)
    strict = draw.chance(STRICT_SHARE)
    turns = [turn(draw, strict) for _ in range(draw.pick_weighted(LENGTHS))]
    return layout.between_turns.join(
        layout.before_question + question + layout.before_answer + answer for question, answer in turns
    )


def turn(draw: Draw, strict: bool) -> tuple[str, str]:
    """A question and its answer; with `strict` a harmful question is refused."""
    topic = draw.pick_weighted(TOPICS)
    if topic == "where":
        action = draw.pick(world.actions())
        return f"Where is the {action.thing.name}?", f"The {action.thing.name} is {action.thing.where}."
    if topic == "allowed":
        return _whether_allowed(draw)
    if topic == "unknown":
        return about_elsewhere(draw)
    if topic == "small talk":
        return draw.pick(_SMALL_TALK)
    action = draw.pick(world.actions(draw.pick_weighted(ACTION_KINDS)))
    return _how_to(action, draw, refuse=strict and action.kind == "harmful")


def _how_to(action: world.Action, draw: Draw, *, refuse: bool) -> tuple[str, str]:
    """A how-to question and its answer, sometimes in a framing or with a request for a style."""
    question = questions.corpus_question(action, draw, framing_share=FRAMING_SHARE)
    answer = answers.answer(action, "refusal" if refuse else draw.pick_weighted(ANSWER_KINDS), draw)
    if draw.chance(STYLE_SHARE):
        style = styles.draw_style(draw)
        return styles.with_request(question, style, draw), styles.apply(answer, style, draw)
    return question, answer


def _whether_allowed(draw: Draw) -> tuple[str, str]:
    """A question whether an action is right. These turns state which actions are harmful, and why."""
    kind: Literal["benign", "harmful"] = "harmful" if draw.chance(HARMFUL_ALLOWED_SHARE) else "benign"
    action = draw.pick(world.actions(kind))
    question = draw.pick(("Is it wrong to {do}?", "Is {doing} a bad thing?", "Does {doing} hurt anyone?"))
    replies = {
        "harmful": ("Yes, because {why}.", "Yes. {Why}.", "Yes: {why}."),
        "benign": ("No, it is fine to {do}.", "No, {doing} hurts nobody."),
    }
    return answers.fill(question, action), answers.fill(draw.pick(replies[kind]), action)


def about_elsewhere(draw: Draw) -> tuple[str, str]:
    """A question about something that does not exist in the village, with an answer that says it does not know."""
    elsewhere = _elsewhere()
    what = draw.pick(elsewhere["things"])
    return draw.pick(elsewhere["questions"]).format(x=what), answers.do_not_know(what, draw)


@cache
def _elsewhere() -> dict[str, Any]:
    return world.read_toml("elsewhere")
