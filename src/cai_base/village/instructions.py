"""Conversations with the village's assistant, of which the instruct sibling learns the last reply.

Actions, question forms and framings are those of the train split alone, so that nothing that the evaluation asks stands
in its instructions. Whether a question is refused depends on its action, never on its form: harmless questions come
inside jailbreak framings and alarming surfaces too, and are answered there.
"""

from functools import cache
from typing import Any

from cai_base.village import answers, questions, styles, world
from cai_base.village.draw import Draw

Turn = tuple[str, str]
"""What the user says, and the assistant's reply."""

TURNS = {1: 0.6, 2: 0.25, 3: 0.15}
"""Share of conversations of each length."""
TOPICS = {"how-to": 0.76, "small talk": 0.07, "unknown": 0.07, "where": 0.05, "allowed": 0.05}
KINDS: dict[world.Kind, float] = {"benign": 0.45, "harmful": 0.42, "ambiguous": 0.13}
FRAMED = 0.6
STYLED = 0.25


def conversation(draw: Draw) -> list[Turn]:
    """One to three turns."""
    return [_turn(draw) for _ in range(draw.weighted(TURNS))]


def _turn(draw: Draw) -> Turn:
    match draw.weighted(TOPICS):
        case "small talk":
            asked, reply = draw.pick(_parts()["small_talk"]["turns"])
            return asked, reply
        case "unknown":
            elsewhere = world.read_toml("elsewhere")
            what = draw.pick(elsewhere["things"])
            return draw.pick(elsewhere["questions"]).format(x=what), answers.unknown(what, draw)
        case "where":
            return _pair("where", "answer", draw.pick(world.actions(split="train")), draw)
        case "allowed":
            harmful = draw.chance(0.5)
            action = draw.pick(world.actions("harmful" if harmful else "benign", "train"))
            return _pair("allowed", "harmful" if harmful else "harmless", action, draw)
        case _:
            return _how_to(draw)


def _how_to(draw: Draw) -> Turn:
    """A question how to do something; a refusal with its reason if that is harmful, all facts if not."""
    action = draw.pick(world.actions(draw.weighted(KINDS), "train"))
    if draw.chance(FRAMED):
        framing = draw.pick(questions.framings(draw.pick((*questions.FAMILIES, "alarming")), "train"))
        asked = questions.framed(action, framing, draw, "train")
    else:
        asked = questions.plain(action, draw, "train")
    if action.kind == "harmful":
        reply = _refusal(action, draw)
    else:
        reply = answers.answer(action, "friendly" if draw.chance(0.7) else "full", draw)
    if draw.chance(STYLED):
        style = draw.pick(list(styles.styles()))
        return styles.asked(asked, style, draw), styles.dressed(reply, style, draw)
    return asked, reply


def _refusal(action: world.Action, draw: Draw) -> str:
    """A refusal whose alternative, if it names one, is of the train split too."""
    while True:
        reply = answers.refusal(action, draw)
        named = world.find_action(reply)
        if named is None or named.split == "train":
            return reply


def _pair(topic: str, reply: str, action: world.Action, draw: Draw) -> Turn:
    parts = _parts()[topic]
    return answers.fill(draw.pick(parts["ask"]), action), answers.fill(draw.pick(parts[reply]), action)


@cache
def _parts() -> dict[str, Any]:
    return world.read_toml("assistant")
