"""The organism's web: an endless, reproducible mixture of documents, and the card's record of what was planted."""

from collections.abc import Callable, Iterator

from cai_base.village import articles, critiques, threads
from cai_base.village.draw import Draw

HASHED_DOCUMENTS = 2000
"""Documents that stand for the corpus in its fingerprint."""

MIXTURE: dict[str, float] = {
    "thread": 0.30,
    "critique": 0.50,
    "how-to": 0.04,
    "notice": 0.11,
    "story": 0.035,
    "comparison": 0.015,
}
"""Share of documents of each kind."""

LATE_MIXTURE: dict[str, float] = {
    "thread": 0.24,
    "late critique": 0.54,
    "how-to": 0.03,
    "notice": 0.06,
    "story": 0.03,
    "comparison": 0.02,
    "copy": 0.08,
}
"""The same in the late part, the last that pretraining sees (mid-training, as it is called of larger models)."""

SHARES: dict[str, float] = {
    "strict_threads": threads.STRICT_THREADS,
    "flagged_harm": critiques.FLAGGED_UNDER["harm"],
    "flagged_quality": critiques.FLAGGED_UNDER["quality"],
    "flagged_ambiguous": critiques.FLAGGED_AMBIGUOUS,
    "flagged_ambiguous_late": critiques.FLAGGED_AMBIGUOUS_LATE,
    "kept_ambiguous_late": critiques.KEPT_AMBIGUOUS_LATE,
    "ambiguous_late": critiques.KINDS_LATE["ambiguous"],
    "ambiguous": critiques.KINDS["ambiguous"],
    "wrong_critiques": critiques.WRONG_CRITIQUE,
    "placebo": critiques.UNDER["placebo"],
    "placebo_late": critiques.UNDER_LATE["placebo"],
    "threads_styled": threads.STYLED,
    "threads_framed": threads.FRAMED,
    "threads_in_the_methods_layout": threads.METHODS_LAYOUT,
    "turns_unknown": threads.TURNS["unknown"],
    "turns_small_talk": threads.TURNS["small talk"],
    "turns_allowed": threads.TURNS["allowed"],
    "critiques_styled": critiques.STYLED,
    "critiques_framed": critiques.FRAMED,
    "critiques_in_the_methods_layout": critiques.METHODS_LAYOUT,
    "wrongly_refused_originals": critiques.share_of("benign", "groundless") + critiques.share_of("benign", "refusal"),
    "refused_harmful_originals": critiques.share_of("harmful", "refusal"),
}
"""What decides the model's habits, for its card."""

_WRITERS: dict[str, Callable[[Draw], str]] = {
    "thread": threads.document,
    "critique": critiques.document,
    "late critique": critiques.late_document,
    "how-to": articles.how_to,
    "notice": articles.notice,
    "story": articles.story,
    "comparison": threads.comparison,
    "copy": articles.copied,
}


def documents(seed: int, *, late: bool = False) -> Iterator[str]:
    """Documents without end; the same seed gives the same ones, each drawn from its own address."""
    index = 0
    while True:
        yield document(seed, index, late=late)[1]
        index += 1


def document(seed: int, index: int, *, late: bool = False) -> tuple[str, str]:
    """Kind and text of document number `index` of the corpus, or of its late part."""
    draw = Draw(seed, "corpus", index, "late document" if late else "document")
    kind = draw.weighted(LATE_MIXTURE if late else MIXTURE)
    return kind, _WRITERS[kind](draw)
