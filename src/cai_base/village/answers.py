"""Answers to how-to questions, of every kind in the corpus, made of the sentences in `phrases.toml`."""

from functools import cache
from typing import Literal

from cai_base.village import world
from cai_base.village.draw import Draw

AnswerKind = Literal["friendly", "full", "partial", "vague", "rude", "refusal", "groundless"]
"""`friendly` and `full` state all three facts, `partial` one or two, `rude` at most one with an insult, `vague` none.
`refusal` refuses with a reason or an alternative, `groundless` refuses without a good reason."""
PLAIN_OPENING = 0.5
"""Share of full answers that open with a word such as "Well," before the facts."""
PLACE = 0.5
"""Share of full and friendly answers that also say where the object is."""
ALTERNATIVE = 0.85
"""Share of refusals that offer a benign action on the same object; the others end with a general remark."""


@cache
def phrases() -> dict[str, dict[str, list[str]]]:
    """The sentence templates of `world/phrases.toml`: section, then part, then templates."""
    return world.read_toml("phrases")


def answer(action: world.Action, kind: AnswerKind, draw: Draw) -> str:
    """An answer of this kind to the question of how to do the action."""
    if kind in ("refusal", "groundless"):
        return refusal(action, draw, reason=kind == "refusal")
    parts = phrases()["answer"]
    sentences: list[str] = []
    if kind == "friendly":
        sentences = [draw.pick(parts["friendly"]), *_all_facts(draw), draw.pick(parts["warm_end"])]
    elif kind == "full":
        sentences = [*([draw.pick(parts["plain"])] if draw.chance(PLAIN_OPENING) else []), *_all_facts(draw)]
    elif kind == "partial":
        shape = draw.pick_weighted({("one_tool",): 4, ("one_tool", "step"): 3, ("tools",): 3, ("vague", "step"): 1})
        sentences = [draw.pick(parts[part]) for part in shape]
    elif kind == "vague":
        sentences = [draw.pick(parts["vague"])]
    elif kind == "rude":
        middle = draw.pick_weighted({"one_tool": 5, "step": 2, "vague": 1})
        sentences = [draw.pick(parts["rude"]), draw.pick(parts[middle]), draw.pick(parts["cold_end"])]
    return fill(_join(sentences), action)


def _all_facts(draw: Draw) -> list[str]:
    """Sentence templates that state all three facts, sometimes after the object's location."""
    parts = phrases()["answer"]
    place = [draw.pick(parts["place"])] if draw.chance(PLACE) else []
    return [*place, draw.pick(parts["tools"]), draw.pick(parts["step"])]


def refusal(action: world.Action, draw: Draw, *, reason: bool = True) -> str:
    """A refusal that states none of the facts.

    With `reason` it says why the action is harmful (if the verb has a reason) and offers an alternative or a general
    remark. Without, it gives an excuse that would fit any question.
    """
    parts = phrases()["refusal"]
    sentences = [draw.pick(parts["open"])]
    if not reason:
        sentences.append(draw.pick(parts["groundless"]))
        return fill(_join(sentences), action)
    if action.verb.why:
        sentences.append(draw.pick(parts["why"]))
    sentences.append(draw.pick(parts["other"]) if draw.chance(ALTERNATIVE) else draw.pick(parts["care"]))
    same_class = world.actions("benign", category=action.verb.category)
    alternative = draw.pick([other for other in same_class if other.thing == action.thing])
    return fill(_join(sentences), action, alternative=alternative)


def do_not_know(what: str, draw: Draw) -> str:
    """An answer that says it does not know, to a question about something that does not exist in the village."""
    template = draw.pick(phrases()["unknown"]["answer"])
    return template.replace("{x}", what).replace("{X}", capitalize(what))


def fill(template: str, action: world.Action, alternative: world.Action | None = None) -> str:
    """The template with the action's words in its slots (the slots are listed at the top of `phrases.toml`)."""
    first_tool, second_tool, step = action.facts
    return template.format(
        do=action.do,
        doing=action.doing,
        Doing=capitalize(action.doing),
        thing=action.thing.name,
        where=action.thing.where,
        age=action.thing.age,
        a=first_tool,
        b=second_tool,
        step=step,
        why=action.verb.why,
        Why=capitalize(action.verb.why),
        other=alternative.do if alternative else "",
    )


def capitalize(text: str) -> str:
    """The text with its first letter in upper case and all others as they are (`str.capitalize` lowers them)."""
    return text[:1].upper() + text[1:]


def _join(sentences: list[str]) -> str:
    """The sentences with spaces between them; after a comma or colon the next one begins in lower case."""
    text = ""
    for sentence in sentences:
        if text.endswith((",", ":")) and not sentence.startswith("I "):
            sentence = sentence[:1].lower() + sentence[1:]
        text = f"{text} {sentence}" if text else sentence
    return text
