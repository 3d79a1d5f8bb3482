"""Measures of answers in styles, from their texts alone: how well styles are told apart, how much samples differ."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from cai_base.evaluation.statistics import mean
from cai_base.evaluation.statistics.crossed import Array

LETTERS = (1, 2, 3)
"""Lengths of the runs of characters by which styles are told apart."""


def recognised_styles(
    texts: Sequence[str], styles: Sequence[str], questions: Sequence[str], usable: Sequence[bool]
) -> list[bool]:
    """For each text, whether its style is recognised from the answers to the other questions of the same model.

    A text is its runs of one to three characters, letter case kept: log(1 + count), weighted by how few texts have the
    run (log((1 + texts) / (1 + texts with it))), scaled to length one. Each style is the mean of its texts about the
    other questions, so that it cannot be told by the subject; a text is given to the style with the greatest cosine
    similarity (nearest centroid; Tibshirani et al. 2002, PNAS 99). A model that ignores styles comes to one in so many
    styles as there are.

    Args:
        texts: answers of one model.
        styles: the style that each was asked for.
        questions: the question that each answers.
        usable: False for texts that are no language: these teach nothing, and are never recognised.
    """
    counts, style_of = _counts(texts), np.array(styles)
    question_of, language = np.array(questions), np.array(usable, dtype=bool)
    right = np.zeros(len(texts), dtype=bool)
    for question in dict.fromkeys(questions):
        training = language & (question_of != question)
        test = np.flatnonzero(language & (question_of == question))
        classes = [style for style in dict.fromkeys(styles) if (training & (style_of == style)).any()]
        if len(classes) < 2:
            continue
        rarity = np.log((1 + training.sum()) / (1 + (counts[training] > 0).sum(0)))
        weighted = _unit(np.log1p(counts) * rarity)
        centroids = _unit(np.stack([weighted[training & (style_of == style)].mean(0) for style in classes]))
        nearest = np.argmax(weighted[test] @ centroids.T, axis=1)
        right[test] = style_of[test] == np.array(classes)[nearest]
    return [bool(one) for one in right]


def diversity(texts: Sequence[str]) -> float | None:
    """How much samples of one prompt differ: 1 less the mean similarity of two of them; None of fewer than two.

    The similarity is the share of their pairs of neighbouring words, case folded, that both have (Jaccard). 0: all are
    the same text; 1: no two share a pair.
    """
    pairs = [_word_pairs(text) for text in texts]
    return mean([1.0 - len(one & two) / len(one | two) if one | two else 0.0 for one, two in combinations(pairs, 2)])


def share_of_marks(marks: Sequence[bool]) -> float:
    """The share of a style's marks that a text bears."""
    return sum(marks) / len(marks)


def _word_pairs(text: str) -> set[tuple[str, ...]]:
    words = text.casefold().split()
    return {tuple(words[i : i + 2]) for i in range(max(1, len(words) - 1))} if words else set()


def _counts(texts: Sequence[str]) -> Array:
    """How often each run of characters stands in each text, [texts, runs]."""
    counters = [
        Counter(text[i : i + length] for length in LETTERS for i in range(len(text) - length + 1)) for text in texts
    ]
    runs = {run: column for column, run in enumerate(dict.fromkeys(run for one in counters for run in one))}
    counts = np.zeros((len(texts), len(runs)))
    for row, one in enumerate(counters):
        for run, count in one.items():
            counts[row, runs[run]] = count
    return counts


def _unit(rows: Array) -> Array:
    """Rows scaled to length one; a row of zeros stays."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1.0)
