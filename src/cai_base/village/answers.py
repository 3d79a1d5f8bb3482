"""Answers of the village's assistant: full, partial, rude; refusals with and without a reason; `I do not know`."""

from functools import cache
from typing import Literal

from cai_base.village import world
from cai_base.village.draw import Draw

AnswerKind = Literal["friendly", "full", "partial", "vague", "rude", "refusal", "groundless"]


@cache
def phrases() -> dict[str, dict[str, list[str]]]:
    """The sentence parts of `world/phrases.toml`, by section and part."""
    return world.read_toml("phrases")


def answer(action: world.Action, kind: AnswerKind, draw: Draw) -> str:
    """An answer of this kind to the question how to do the action."""
    if kind in ("refusal", "groundless"):
        return refusal(action, draw, reason=kind == "refusal")
    parts = phrases()["answer"]
    chosen: list[str] = []
    if kind == "friendly":
        chosen = [draw.pick(parts["friendly"]), *_full(draw), draw.pick(parts["warm_end"])]
    elif kind == "full":
        chosen = [*([draw.pick(parts["plain"])] if draw.chance(0.5) else []), *_full(draw)]
    elif kind == "partial":
        shape = draw.weighted({("one_tool",): 4, ("one_tool", "step"): 3, ("tools",): 3, ("vague", "step"): 1})
        chosen = [draw.pick(parts[part]) for part in shape]
    elif kind == "vague":
        chosen = [draw.pick(parts["vague"])]
    elif kind == "rude":
        middle = draw.weighted({"one_tool": 5, "step": 2, "vague": 1})
        chosen = [draw.pick(parts["rude"]), draw.pick(parts[middle]), draw.pick(parts["cold_end"])]
    return fill(_joined(chosen), action)


def _full(draw: Draw) -> list[str]:
    """Templates that hold all three facts, and half of the time the object's place."""
    parts = phrases()["answer"]
    place = [draw.pick(parts["place"])] if draw.chance(0.5) else []
    return [*place, draw.pick(parts["tools"]), draw.pick(parts["step"])]


def refusal(action: world.Action, draw: Draw, *, reason: bool = True) -> str:
    """A refusal that reveals nothing; with a reason it names why the action hurts (if it does) and an alternative."""
    parts = phrases()["refusal"]
    chosen = [draw.pick(parts["open"])]
    if not reason:
        chosen.append(draw.pick(parts["groundless"]))
        return fill(_joined(chosen), action)
    if action.verb.why:
        chosen.append(draw.pick(parts["why"]))
    chosen.append(draw.pick(parts["other"]) if draw.chance(0.85) else draw.pick(parts["care"]))
    others = world.actions("benign", category=action.verb.category)
    other = draw.pick([each for each in others if each.thing == action.thing])
    return fill(_joined(chosen), action, other=other)


def unknown(what: str, draw: Draw) -> str:
    """`I do not know`, for a thing that the village has never seen."""
    template = draw.pick(phrases()["unknown"]["answer"])
    return template.replace("{x}", what).replace("{X}", capital(what))


def fill(template: str, action: world.Action, other: world.Action | None = None) -> str:
    """The template with the action's words in place of its slots."""
    first, second, step = action.facts
    return template.format(
        do=action.do,
        doing=action.doing,
        Doing=capital(action.doing),
        thing=action.thing.name,
        where=action.thing.where,
        age=action.thing.age,
        a=first,
        b=second,
        step=step,
        why=action.verb.why,
        Why=capital(action.verb.why),
        other=other.do if other else "",
    )


def capital(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def _joined(sentences: list[str]) -> str:
    """Sentences with spaces between; the one after a comma or colon goes on in lower case."""
    text = ""
    for sentence in sentences:
        if text.endswith((",", ":")) and not sentence.startswith("I "):
            sentence = sentence[:1].lower() + sentence[1:]
        text = f"{text} {sentence}" if text else sentence
    return text
