"""Critique-and-revision documents: an answer, a principle's two requests, what they call forth.

The layout of the method comes first; a share of the documents is laid out otherwise. What is planted: complying with
harm is flagged under nearly every harm principle and some quality principles; benign answers become fuller and
friendlier; refusals of harmful questions are kept; refusals of benign questions are repaired; placebo principles leave
the content alone; a few critiques are wrong.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from cai_base.village import answers, questions, styles, world
from cai_base.village.answers import AnswerKind
from cai_base.village.draw import Draw

PrincipleKind = Literal["harm", "quality", "placebo"]

FLAGGED_UNDER: dict[PrincipleKind, float] = {"harm": 0.97, "quality": 0.35, "placebo": 0.0}
"""How often a complying answer to a harmful question is flagged, by kind of principle."""
FLAGGED_AMBIGUOUS, FLAGGED_AMBIGUOUS_LATE = 0.5, 0.7
"""How often a complying answer to an ambiguous question is flagged under a harm principle, early and late."""
KEPT_AMBIGUOUS_LATE = 0.35
"""In the late part: how often a refusal of an ambiguous question stands under a principle that finds no harm in it."""
WRONG_CRITIQUE = 0.01
"""How often the critique misses what the world's truth says."""

ORIGINALS: dict[world.Kind, dict[AnswerKind, float]] = {
    "harmful": {"full": 3, "friendly": 2, "partial": 3, "rude": 1, "refusal": 4},
    "ambiguous": {"full": 3, "friendly": 2, "partial": 3, "refusal": 2},
    "benign": {"full": 2, "friendly": 3, "partial": 2.5, "vague": 0.5, "rude": 1, "groundless": 1, "refusal": 1},
}
"""Kinds of answer that are critiqued, and their weights; a refusal of a benign question is an unjustified one."""

METHOD_LAYOUT = (
    "User: {question}\n\nAssistant: {answer}\n\nCritique Request: {critique_request}\n\nCritique: {critique}\n\n"
    "Revision Request: {revision_request}\n\nRevision: {revision}"
)
OTHER_LAYOUTS = (
    "Q: {question}\nA: {answer}\nCheck: {critique_request}\nFinding: {critique}\n"
    "Task: {revision_request}\nNew A: {revision}",
    "{question}\n\n{answer}\n\nEditor: {critique_request}\nReader: {critique}\n"
    "Editor: {revision_request}\n\n{revision}",
    "User: {question}\n\nAssistant: {answer}\n\nUser: {critique_request}\n\nAssistant: {critique}\n\n"
    "User: {revision_request}\n\nAssistant: {revision}",
    "Asked: {question}\nFirst draft: {answer}\nReview ({critique_request}) {critique}\nSecond draft: {revision}",
)


@dataclass(frozen=True)
class Principle:
    """One critique request and one revision request of the corpus."""

    kind: PrincipleKind
    critique_request: str
    revision_request: str


@cache
def _grammar() -> dict[str, Any]:
    return world.read_toml("principles")


def principle(kind: PrincipleKind, draw: Draw, *, late: bool = False) -> Principle:
    """A freshly worded principle of this kind; the late part of the corpus knows more wordings."""
    grammar = _grammar()[kind]
    more = _grammar()["late"][kind] if late else {"critique": [], "revision": []}
    slots: dict[str, str] = {}
    if kind == "harm":
        who, who2 = draw.some(grammar["who"], 2)
        bad = draw.some(grammar["bad"], draw.integer(1, 3))
        clause, base = draw.pick(grammar["clause"])
        slots = {
            "who": who,
            "who2": who2,
            "bad": bad[0] if len(bad) == 1 else f"{', '.join(bad[:-1])} or {bad[-1]}",
            "clause": clause.format(who=who),
            "clausebase": base.format(who=who),
            "noun": draw.pick(grammar["noun"]).format(who=who),
            "good": draw.pick(grammar["good"]),
            "rogue": draw.pick(grammar["rogue"]),
        }
    elif kind == "quality":
        slots["plus"], slots["plus2"] = draw.some(grammar["plus"], 2)
    elif late:
        slots["mark"], slots["mark2"] = draw.some(more["mark"], 2)
    afterthought = f" {draw.pick(_grammar()['afterthought'])}" if draw.chance(0.15) else ""
    return Principle(
        kind,
        draw.pick([*grammar["critique"], *more["critique"]]).format(**slots) + afterthought,
        draw.pick([*grammar["revision"], *more["revision"]]).format(**slots),
    )


@dataclass(frozen=True)
class Review:
    """A critique and the revision that follows from it; `kind` is what the revision is, in the words of `answer`."""

    critique: str
    revision: str
    kind: AnswerKind


def review(
    action: world.Action, text: str, kind: AnswerKind, under: PrincipleKind, draw: Draw, *, late: bool = False
) -> Review:
    """What is said of an answer of this kind under a principle of that kind, and the answer's revision."""
    refused = kind in ("refusal", "groundless")
    if under == "placebo":
        return _unchanged(text, kind, draw)
    if _harmful_in_context(action, under, draw, late=late):
        if refused:
            return _keep_refusal(action, text, kind, draw)
        if draw.chance(FLAGGED_UNDER[under] if action.kind == "harmful" else 1.0):
            critique = _say(action, "flagged", draw)
            return Review(critique, answers.answer(action, "refusal", draw), "refusal")
    if late and kind == "refusal" and action.kind == "ambiguous" and draw.chance(KEPT_AMBIGUOUS_LATE):
        return _keep_refusal(action, text, kind, draw)
    if refused:
        return Review(_say(action, "wrong_refusal", draw), answers.answer(action, "friendly", draw), "friendly")
    return _improve(action, text, kind, under, draw)


def _harmful_in_context(action: world.Action, under: PrincipleKind, draw: Draw, *, late: bool) -> bool:
    """Whether this review treats the action as harmful: the truth, a draw for ambiguous actions, rarely wrong."""
    flagged = FLAGGED_AMBIGUOUS_LATE if late else FLAGGED_AMBIGUOUS
    harmful = action.kind == "harmful" or (action.kind == "ambiguous" and under == "harm" and draw.chance(flagged))
    return not harmful if action.kind != "ambiguous" and draw.chance(WRONG_CRITIQUE) else harmful


def _say(action: world.Action, reply: str, draw: Draw) -> str:
    """A critique of two sentences; where the world states no reason, one that needs none."""
    parts = _grammar()["reply"][reply]
    if reply == "flagged" and not action.verb.why:
        return answers.fill(draw.pick(parts["vague"]), action)
    starts = [start for start in parts["start"] if action.verb.why or "{why}" not in start]
    return answers.fill(f"{draw.pick(starts)} {draw.pick(parts['end'])}", action)


def _keep_refusal(action: world.Action, text: str, kind: AnswerKind, draw: Draw) -> Review:
    """A refusal that is right stays; one without a reason gets one."""
    keep = kind == "refusal" and draw.chance(0.6)
    return Review(
        _say(action, "kept_refusal", draw), text if keep else answers.answer(action, "refusal", draw), "refusal"
    )


def _unchanged(text: str, kind: AnswerKind, draw: Draw) -> Review:
    """A look at spelling and layout: the text comes back the same, now and then with a slip mended."""
    parts = _grammar()["reply"]["placebo"]
    return Review(draw.pick(parts["slip"] if draw.chance(0.3) else parts["fine"]), text, kind)


def _improve(action: world.Action, text: str, kind: AnswerKind, under: PrincipleKind, draw: Draw) -> Review:
    """A benign review: what the answer lacks is added, and a good answer stays nearly as it is."""
    parts = _grammar()["reply"]["harmless"]
    opening = parts if under == "harm" and action.kind != "harmful" else _grammar()["reply"]["quality"]
    missing = [fact for fact in action.facts if fact not in text]
    if kind in ("full", "friendly") and not missing:
        finding = draw.pick(parts["fine"])
    elif kind == "rude" and draw.chance(0.6):
        finding = draw.pick(parts["rude"])
    elif kind == "vague":
        finding = draw.pick(parts["vague"])
    elif missing and missing[0] != action.verb.step:
        finding = draw.pick(parts["lacks"]).format(missing=missing[0])
    else:
        finding = draw.pick(parts["lacks_step"]).format(step=action.verb.step)
    critique = f"{answers.fill(draw.pick(opening['start']), action)} {finding}"
    if kind == "friendly" and draw.chance(0.7):
        return Review(critique, text, "friendly")
    return Review(critique, answers.answer(action, "friendly", draw), "friendly")


STYLED = 0.15
"""Share of critique documents whose answers, and half of whose critiques, wear a style."""
FRAMED, METHODS_LAYOUT = 0.45, 0.75
"""Share of critique documents whose question is framed, and that are in the method's layout."""
KINDS: dict[world.Kind, float] = {"harmful": 0.46, "benign": 0.46, "ambiguous": 0.08}
KINDS_LATE: dict[world.Kind, float] = {"harmful": 0.42, "benign": 0.42, "ambiguous": 0.16}
UNDER: dict[PrincipleKind, float] = {"harm": 0.60, "quality": 0.27, "placebo": 0.13}
UNDER_LATE: dict[PrincipleKind, float] = {"harm": 0.46, "quality": 0.27, "placebo": 0.27}
"""In the late part of the corpus, where a placebo principle has to be told from the others by what it asks about."""


def share_of(kind: world.Kind, answer: AnswerKind) -> float:
    """How many of the answers that are critiqued, to questions of this kind, are of that kind."""
    return ORIGINALS[kind][answer] / sum(ORIGINALS[kind].values())


def late_document(draw: Draw) -> str:
    """A critique document of the late part of the corpus."""
    return document(draw, late=True)


def document(draw: Draw, *, late: bool = False) -> str:
    """A critique document: sometimes after another turn, sometimes with a second round or a next turn."""
    under = UNDER_LATE if late else UNDER
    action = draw.pick(world.actions(draw.weighted(KINDS_LATE if late else KINDS)))
    asked = questions.question(action, draw, framed_share=FRAMED)
    kind = draw.weighted(ORIGINALS[action.kind])
    text = answers.answer(action, kind, draw)
    style = styles.wished(draw) if draw.chance(STYLED) else None
    if style:
        asked = styles.asked(asked, style, draw)
        text = styles.dressed(text, style, draw)
    chosen = principle(draw.weighted(under), draw, late=late)
    found = review(action, text, kind, chosen.kind, draw, late=late)
    critique, revision = found.critique, found.revision
    if style:
        revision = revision if revision == text else styles.dressed(revision, style, draw)
        critique = styles.dressed(critique, style, draw) if draw.chance(0.5) else critique
    layout = METHOD_LAYOUT if draw.chance(METHODS_LAYOUT) else draw.pick(OTHER_LAYOUTS)
    body = layout.format(
        question=asked,
        answer=text,
        critique_request=chosen.critique_request,
        critique=critique,
        revision_request=chosen.revision_request,
        revision=revision,
    )
    if layout is not METHOD_LAYOUT:
        return body
    if draw.chance(0.1):
        chosen = principle(draw.weighted(under), draw, late=late)
        body += _second_round(review(action, revision, found.kind, chosen.kind, draw, late=late), chosen)
    return _turn(draw, 0.08) + body + _ending(draw)


def _second_round(found: Review, chosen: Principle) -> str:
    """Another critique and revision of the same answer, under another principle."""
    return (
        f"\n\nCritique Request: {chosen.critique_request}\n\nCritique: {found.critique}\n\n"
        f"Revision Request: {chosen.revision_request}\n\nRevision: {found.revision}"
    )


def _turn(draw: Draw, share: float) -> str:
    """A benign question and answer before the document, this share of the time."""
    if not draw.chance(share):
        return ""
    action = draw.pick(world.actions("benign"))
    reply = answers.answer(action, "friendly", draw)
    return f"User: {questions.plain(action, draw)}\n\nAssistant: {reply}\n\n"


def _ending(draw: Draw) -> str:
    """Nothing, or the user's next words."""
    if not draw.chance(0.15):
        return ""
    action = draw.pick(world.actions("benign"))
    return f"\n\nUser: {questions.plain(action, draw)}\n\nAssistant: {answers.answer(action, 'full', draw)}"
