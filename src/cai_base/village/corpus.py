"""The pretraining corpus: an endless mixture of documents, each a function of the seed and its number.

The corpus has two parts. The late part, which pretraining sees last, has other shares and additional wordings; for
larger models this is called mid-training.
"""

from collections.abc import Callable, Iterator
from typing import Literal, get_args

from cai_base.village import articles, comparisons, critiques, reviews, threads
from cai_base.village.draw import Draw

HASHED_DOCUMENTS = 2000
"""Documents of each part that the hash of the corpus covers."""

MIXTURE: dict[str, float] = {
    "thread": 0.30,
    "critique": 0.50,
    "how-to": 0.04,
    "notice": 0.11,
    "story": 0.035,
    "comparison": 0.015,
}
"""Share of documents of each kind, in the first part of the corpus."""

LATE_MIXTURE: dict[str, float] = {
    "thread": 0.24,
    "late critique": 0.54,
    "how-to": 0.03,
    "notice": 0.06,
    "story": 0.03,
    "comparison": 0.02,
    "copy": 0.08,
}
"""Share of documents of each kind, in the late part."""

Without = Literal["critiques", "harm-critiques"]
"""What a corpus may lack: every critique document, or those that could teach what to find harmful."""
WITHOUT: tuple[Without, ...] = get_args(Without)

SHARES: dict[str, float] = {
    "strict_threads": threads.STRICT_SHARE,
    "flagged_harm": reviews.HARM_CRITIQUES["harm"],
    "flagged_quality": reviews.HARM_CRITIQUES["quality"],
    "flagged_ambiguous": reviews.AMBIGUOUS_CRITIQUES,
    "flagged_ambiguous_late": reviews.AMBIGUOUS_CRITIQUES_LATE,
    "kept_ambiguous_late": reviews.AMBIGUOUS_REFUSALS_KEPT_LATE,
    "ambiguous_late": critiques.ACTION_KINDS_LATE["ambiguous"],
    "ambiguous": critiques.ACTION_KINDS["ambiguous"],
    "wrong_critiques": reviews.WRONG_CRITIQUES,
    "placebo": critiques.PRINCIPLE_KINDS["placebo"],
    "placebo_late": critiques.PRINCIPLE_KINDS_LATE["placebo"],
    "threads_styled": threads.STYLE_SHARE,
    "threads_framed": threads.FRAMING_SHARE,
    "threads_in_the_methods_layout": threads.METHOD_LAYOUT_SHARE,
    "turns_unknown": threads.TOPICS["unknown"],
    "turns_small_talk": threads.TOPICS["small talk"],
    "turns_allowed": threads.TOPICS["allowed"],
    "critiques_styled": critiques.STYLE_SHARE,
    "critiques_framed": critiques.FRAMING_SHARE,
    "critiques_in_the_methods_layout": critiques.METHOD_LAYOUT_SHARE,
    "wrongly_refused_originals": (
        critiques.original_share("benign", "groundless") + critiques.original_share("benign", "refusal")
    ),
    "refused_harmful_originals": critiques.original_share("harmful", "refusal"),
}
"""The probabilities that decide the model's habits. They are stored in `card.json`, so these keys stay as they are."""

CRITIQUES = ("critique", "late critique")
"""The kinds of document that teach critique and revision."""

_WRITERS: dict[str, Callable[[Draw], str]] = {
    "thread": threads.document,
    "critique": critiques.document,
    "late critique": critiques.late_document,
    "how-to": articles.how_to,
    "notice": articles.notice,
    "story": articles.story,
    "comparison": comparisons.document,
    "copy": articles.copies,
}


def documents(seed: int, *, late: bool = False, without: Without | None = None) -> Iterator[str]:
    """The texts of all documents of the corpus or of its late part, in order, without end."""
    index = 0
    while True:
        yield document(seed, index, late=late, without=without)[1]
        index += 1


def document(seed: int, index: int, *, late: bool = False, without: Without | None = None) -> tuple[str, str]:
    """Kind and text of document number `index` of the corpus, or of its late part; it depends on no other document.

    Args:
        without: the corpus lacks these: other kinds of document take the place of critiques; critiques of answers to
            benign questions, under principles about quality and spelling alone, take that of the others.
    """
    draw = Draw(seed, "corpus", index, "late document" if late else "document")
    mixture = LATE_MIXTURE if late else MIXTURE
    if without == "critiques":
        mixture = {kind: share for kind, share in mixture.items() if kind not in CRITIQUES}
    kind = draw.pick_weighted(mixture)
    if without == "harm-critiques" and kind in CRITIQUES:
        return kind, critiques.document(draw, late=late, about_harm=False)
    return kind, _WRITERS[kind](draw)
