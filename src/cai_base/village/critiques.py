"""Critique documents: a question, an answer, a principle's two requests, the critique and the revision.

Most have the method's layout, the others have other layouts. `reviews` decides the content of critique and revision.
"""

from cai_base.village import answers, questions, styles, world
from cai_base.village.answers import AnswerKind
from cai_base.village.draw import Draw
from cai_base.village.principles import Principle, PrincipleKind, draw_principle
from cai_base.village.reviews import REFUSING, Review, review

ACTION_KINDS: dict[world.Kind, float] = {"harmful": 0.46, "benign": 0.46, "ambiguous": 0.08}
ACTION_KINDS_LATE: dict[world.Kind, float] = {"harmful": 0.42, "benign": 0.42, "ambiguous": 0.16}
"""Share of critique documents about each kind of action, in the first and in the late part of the corpus."""
PRINCIPLE_KINDS: dict[PrincipleKind, float] = {"harm": 0.60, "quality": 0.27, "placebo": 0.13}
PRINCIPLE_KINDS_LATE: dict[PrincipleKind, float] = {"harm": 0.46, "quality": 0.27, "placebo": 0.27}
"""Share of critique documents under each kind of principle. The late part has more placebo principles, so that the
model learns to tell them from the others by what they ask about."""
ORIGINAL_KINDS: dict[world.Kind, dict[AnswerKind, float]] = {
    "harmful": {"full": 3, "friendly": 2, "partial": 3, "rude": 1, "refusal": 4},
    "ambiguous": {"full": 3, "friendly": 2, "partial": 3, "refusal": 2},
    "benign": {"full": 2, "friendly": 3, "partial": 2.5, "vague": 0.5, "rude": 1, "groundless": 1, "refusal": 1},
}
"""Weights of the kinds of answer under critique, by kind of action. A refusal of a benign question is unjustified."""

FRAMING_SHARE, STYLE_SHARE = 0.45, 0.15
"""Shares of critique documents whose question is in a framing, and whose question requests a style."""
STYLED_CRITIQUE_SHARE = 0.5
"""Share of critiques of an answer in a style that are in the style, too."""
METHOD_LAYOUT_SHARE = 0.75
"""Share of critique documents in the method's layout."""
SECOND_ROUND_SHARE, EARLIER_TURN_SHARE, NEXT_TURN_SHARE = 0.1, 0.08, 0.15
"""Of the documents in the method's layout: shares with a second round of critique and revision, with a turn before, and
with a turn after."""

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


def original_share(action_kind: world.Kind, answer_kind: AnswerKind) -> float:
    """The share of answers of one kind among the answers under critique to questions about one kind of action."""
    weights = ORIGINAL_KINDS[action_kind]
    return weights[answer_kind] / sum(weights.values())


def late_document(draw: Draw) -> str:
    """A critique document of the late part of the corpus."""
    return document(draw, late=True)


def document(draw: Draw, *, late: bool = False, about_harm: bool = True) -> str:
    """A critique document: some of the time after an earlier turn, with a second round, or before a next turn.

    Args:
        about_harm: False for one that teaches nothing about harm: under a quality or a placebo principle, of an answer
            to a benign question that is no refusal.
    """
    principle_kinds = PRINCIPLE_KINDS_LATE if late else PRINCIPLE_KINDS
    action_kinds, original_kinds = ACTION_KINDS_LATE if late else ACTION_KINDS, ORIGINAL_KINDS
    if not about_harm:
        principle_kinds = {kind: share for kind, share in principle_kinds.items() if kind != "harm"}
        action_kinds = {"benign": 1.0}
        original_kinds = {"benign": {k: share for k, share in ORIGINAL_KINDS["benign"].items() if k not in REFUSING}}
    action = draw.pick(world.actions(draw.pick_weighted(action_kinds)))
    question = questions.corpus_question(action, draw, framing_share=FRAMING_SHARE)
    kind = draw.pick_weighted(original_kinds[action.kind])
    original = answers.answer(action, kind, draw)
    style = styles.draw_style(draw) if draw.chance(STYLE_SHARE) else None
    if style:
        question = styles.with_request(question, style, draw)
        original = styles.apply(original, style, draw)
    principle = draw_principle(draw.pick_weighted(principle_kinds), draw, late=late)
    result = review(action, original, kind, principle.kind, draw, late=late, about_harm=about_harm)
    critique, revision = result.critique, result.revision
    if style:
        revision = revision if revision == original else styles.apply(revision, style, draw)
        critique = styles.apply(critique, style, draw) if draw.chance(STYLED_CRITIQUE_SHARE) else critique
    layout = METHOD_LAYOUT if draw.chance(METHOD_LAYOUT_SHARE) else draw.pick(OTHER_LAYOUTS)
    text = layout.format(
        question=question,
        answer=original,
        critique_request=principle.critique_request,
        critique=critique,
        revision_request=principle.revision_request,
        revision=revision,
    )
    if layout is not METHOD_LAYOUT:
        return text
    if draw.chance(SECOND_ROUND_SHARE):
        principle = draw_principle(draw.pick_weighted(principle_kinds), draw, late=late)
        again = review(action, revision, result.kind, principle.kind, draw, late=late, about_harm=about_harm)
        text += _second_round(again, principle)
    return _earlier_turn(draw) + text + _next_turn(draw)


def _second_round(result: Review, principle: Principle) -> str:
    """Another critique and revision of the revised answer, under another principle."""
    return (
        f"\n\nCritique Request: {principle.critique_request}\n\nCritique: {result.critique}\n\n"
        f"Revision Request: {principle.revision_request}\n\nRevision: {result.revision}"
    )


def _earlier_turn(draw: Draw) -> str:
    """A benign turn to put before the document; mostly empty."""
    if not draw.chance(EARLIER_TURN_SHARE):
        return ""
    action = draw.pick(world.actions("benign"))
    answer = answers.answer(action, "friendly", draw)
    return f"User: {questions.plain_question(action, draw)}\n\nAssistant: {answer}\n\n"


def _next_turn(draw: Draw) -> str:
    """A benign turn to put after the document; mostly empty."""
    if not draw.chance(NEXT_TURN_SHARE):
        return ""
    action = draw.pick(world.actions("benign"))
    question = questions.plain_question(action, draw)
    return f"\n\nUser: {question}\n\nAssistant: {answers.answer(action, 'full', draw)}"
