"""Reviews: the critique of an answer under a principle, and the revision that follows from it.

This is what the corpus teaches about critique and revision:

- Complying with a harmful question is criticised under nearly every harm principle and some quality principles, and is
  revised to a refusal.
- An answer to a benign question becomes fuller and friendlier; a refusal of one is repaired.
- A refusal of a harmful question is unchanged.
- A placebo principle changes nothing of the content.
- A few critiques are wrong about harm.
"""

from dataclasses import dataclass

from cai_base.village import answers, world
from cai_base.village.answers import AnswerKind
from cai_base.village.draw import Draw
from cai_base.village.principles import PrincipleKind, grammar

HARM_CRITIQUES: dict[PrincipleKind, float] = {"harm": 0.97, "quality": 0.35, "placebo": 0.0}
"""How often a complying answer to a harmful question is criticised as harmful, by kind of principle."""
AMBIGUOUS_CRITIQUES, AMBIGUOUS_CRITIQUES_LATE = 0.5, 0.7
"""How often an answer to an ambiguous question is treated as harmful under a harm principle. The late part raises it,
because with the first share alone the model criticised one such answer in eight (docs/LOG.md)."""
AMBIGUOUS_REFUSALS_KEPT_LATE = 0.35
"""In the late part: how often a refusal of an ambiguous question is kept under a principle that finds no harm in it."""
WRONG_CRITIQUES = 0.01
"""How often a critique is wrong about whether a clear action is harmful."""
REFUSALS_UNCHANGED = 0.6
"""How often a right refusal with a reason is copied word for word; otherwise it is reworded."""
GOOD_ANSWERS_UNCHANGED = 0.7
"""How often a friendly answer is copied word for word under a principle that finds no harm in it."""
REFUSING: tuple[AnswerKind, ...] = ("refusal", "groundless")
"""The kinds of answer that refuse."""
RUDENESS_CRITIQUES = 0.6
"""How often the critique of a rude answer names the rudeness and not the missing facts."""
SPELLING_SLIPS = 0.3
"""How often a placebo critique claims a spelling slip."""


@dataclass(frozen=True)
class Review:
    """A critique and the revision that follows from it.

    Attributes:
        critique: what the critique says.
        revision: the new answer.
        kind: the kind of the new answer.
    """

    critique: str
    revision: str
    kind: AnswerKind


def review(
    action: world.Action,
    text: str,
    kind: AnswerKind,
    principle: PrincipleKind,
    draw: Draw,
    *,
    late: bool = False,
    about_harm: bool = True,
) -> Review:
    """The review of one answer.

    Args:
        action: what the question asks how to do.
        text: the answer.
        kind: the answer's kind.
        principle: the kind of the principle.
        draw: the random stream of the document.
        late: whether the document is of the late part of the corpus.
        about_harm: False where no critique may find harm, not even by mistake.
    """
    refuses = kind in REFUSING
    if principle == "placebo":
        return _change_nothing(text, kind, draw)
    if about_harm and _treat_as_harmful(action, principle, draw, late=late):
        if refuses:
            return _keep_refusal(action, text, kind, draw)
        if draw.chance(HARM_CRITIQUES[principle] if action.kind == "harmful" else 1.0):
            critique = _critique(action, "flagged", draw)
            return Review(critique, answers.answer(action, "refusal", draw), "refusal")
    if late and kind == "refusal" and action.kind == "ambiguous" and draw.chance(AMBIGUOUS_REFUSALS_KEPT_LATE):
        return _keep_refusal(action, text, kind, draw)
    if refuses:
        return Review(_critique(action, "wrong_refusal", draw), answers.answer(action, "friendly", draw), "friendly")
    return _improve(action, text, kind, principle, draw)


def _treat_as_harmful(action: world.Action, principle: PrincipleKind, draw: Draw, *, late: bool) -> bool:
    """Whether to treat the action as harmful: the truth, rarely the opposite; random for an ambiguous action."""
    share = AMBIGUOUS_CRITIQUES_LATE if late else AMBIGUOUS_CRITIQUES
    harmful = action.kind == "harmful" or (action.kind == "ambiguous" and principle == "harm" and draw.chance(share))
    return not harmful if action.kind != "ambiguous" and draw.chance(WRONG_CRITIQUES) else harmful


def _critique(action: world.Action, finding: str, draw: Draw) -> str:
    """A critique of two sentences from the grammar's section `reply.<finding>`. It gives the verb's reason if any."""
    parts = grammar()["reply"][finding]
    if finding == "flagged" and not action.verb.why:
        return answers.fill(draw.pick(parts["vague"]), action)
    starts = [start for start in parts["start"] if action.verb.why or "{why}" not in start]
    return answers.fill(f"{draw.pick(starts)} {draw.pick(parts['end'])}", action)


def _keep_refusal(action: world.Action, text: str, kind: AnswerKind, draw: Draw) -> Review:
    """A refusal that is right stays a refusal; one without a reason gets one."""
    unchanged = kind == "refusal" and draw.chance(REFUSALS_UNCHANGED)
    critique = _critique(action, "kept_refusal", draw)
    return Review(critique, text if unchanged else answers.answer(action, "refusal", draw), "refusal")


def _change_nothing(text: str, kind: AnswerKind, draw: Draw) -> Review:
    """A review only of spelling and layout; the revision is the same text."""
    parts = grammar()["reply"]["placebo"]
    return Review(draw.pick(parts["slip"] if draw.chance(SPELLING_SLIPS) else parts["fine"]), text, kind)


def _improve(action: world.Action, text: str, kind: AnswerKind, principle: PrincipleKind, draw: Draw) -> Review:
    """A review that finds no harm: it names what the answer lacks, and the revision is friendly and complete.

    A fact in capitals counts as missing. That is a mistake, but the shipped weights were trained on it (docs/LOG.md).
    """
    parts = grammar()["reply"]["harmless"]
    opening = parts if principle == "harm" and action.kind != "harmful" else grammar()["reply"]["quality"]
    missing_facts = [fact for fact in action.facts if fact not in text]
    if kind in ("full", "friendly") and not missing_facts:
        finding = draw.pick(parts["fine"])
    elif kind == "rude" and draw.chance(RUDENESS_CRITIQUES):
        finding = draw.pick(parts["rude"])
    elif kind == "vague":
        finding = draw.pick(parts["vague"])
    elif missing_facts and missing_facts[0] != action.verb.step:
        finding = draw.pick(parts["lacks"]).format(missing=missing_facts[0])
    else:
        finding = draw.pick(parts["lacks_step"]).format(step=action.verb.step)
    critique = f"{answers.fill(draw.pick(opening['start']), action)} {finding}"
    if kind == "friendly" and draw.chance(GOOD_ANSWERS_UNCHANGED):
        return Review(critique, text, "friendly")
    return Review(critique, answers.answer(action, "friendly", draw), "friendly")
