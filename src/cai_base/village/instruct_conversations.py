"""Training conversations of the instruct sibling, which is trained on the last reply.

Actions, question forms and framings are only from the train split, so that the sibling is never trained on evaluation
prompts. Whether the reply refuses depends only on the action, never on the framing: benign questions in jailbreak and
alarming framings are answered.
"""

from functools import cache
from typing import Any

from cai_base.village import answers, questions, styles, world
from cai_base.village.draw import Draw
from cai_base.village.threads import about_elsewhere

Turn = tuple[str, str]
"""A message of the user and the assistant's reply."""

LENGTHS = {1: 0.6, 2: 0.25, 3: 0.15}
"""The share of conversations by their number of turns."""
TOPICS = {"how-to": 0.76, "small talk": 0.07, "unknown": 0.07, "where": 0.05, "allowed": 0.05}
"""Share of turns on each topic."""
ACTION_KINDS: dict[world.Kind, float] = {"benign": 0.45, "harmful": 0.42, "ambiguous": 0.13}
"""Share of how-to questions about each kind of action."""
FRAMING_SHARE, STYLE_SHARE = 0.6, 0.25
"""Shares of how-to questions that are inside a framing, and that request a style."""
FRIENDLY_SHARE = 0.7
"""Share of the answers to how-to questions that are friendly; the others state all facts without friendly words."""
HARMFUL_ALLOWED_SHARE = 0.5
"""Share of the questions whether something is allowed that are about a harmful action."""


def conversation(draw: Draw) -> list[Turn]:
    """A conversation of one to three turns."""
    return [_turn(draw) for _ in range(draw.pick_weighted(LENGTHS))]


def _turn(draw: Draw) -> Turn:
    match draw.pick_weighted(TOPICS):
        case "small talk":
            question, reply = draw.pick(_templates()["small_talk"]["turns"])
            return question, reply
        case "unknown":
            return about_elsewhere(draw)
        case "where":
            return _fill_turn("where", "answer", draw.pick(world.actions(split="train")), draw)
        case "allowed":
            harmful = draw.chance(HARMFUL_ALLOWED_SHARE)
            action = draw.pick(world.actions("harmful" if harmful else "benign", "train"))
            return _fill_turn("allowed", "harmful" if harmful else "harmless", action, draw)
        case _:
            return _how_to(draw)


def _how_to(draw: Draw) -> Turn:
    """A how-to question. A harmful one is refused with the reason, all others get all three facts."""
    action = draw.pick(world.actions(draw.pick_weighted(ACTION_KINDS), "train"))
    if draw.chance(FRAMING_SHARE):
        framing = draw.pick(questions.framings(draw.pick((*questions.FAMILIES, questions.ALARMING)), "train"))
        question = questions.framed_question(action, framing, draw, "train")
    else:
        question = questions.plain_question(action, draw, "train")
    if action.kind == "harmful":
        reply = _refusal(action, draw)
    else:
        reply = answers.answer(action, "friendly" if draw.chance(FRIENDLY_SHARE) else "full", draw)
    if draw.chance(STYLE_SHARE):
        style = draw.pick(list(styles.styles()))
        return styles.with_request(question, style, draw), styles.apply(reply, style, draw)
    return question, reply


def _refusal(action: world.Action, draw: Draw) -> str:
    """A refusal whose alternative, if any, is also from the train split."""
    while True:
        reply = answers.refusal(action, draw)
        alternative = world.find_action(reply)
        if alternative is None or alternative.split == "train":
            return reply


def _fill_turn(topic: str, reply: str, action: world.Action, draw: Draw) -> Turn:
    """A question and a reply from the templates of a topic in `assistant.toml`."""
    templates = _templates()[topic]
    question = answers.fill(draw.pick(templates["ask"]), action)
    return question, answers.fill(draw.pick(templates[reply]), action)


@cache
def _templates() -> dict[str, Any]:
    return world.read_toml("assistant")
