"""Measures of styled answers from their texts alone: how recognisable the styles are, how much samples differ."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from cai_base.evaluation.statistics import mean
from cai_base.evaluation.statistics.crossed import Array

LETTERS = (1, 2, 3)
"""The lengths of the character n-grams by which styles are recognised."""


def recognised_styles(
    texts: Sequence[str], styles: Sequence[str], questions: Sequence[str], usable: Sequence[bool]
) -> list[bool]:
    """For each text, whether its style is recognised from the answers to the other questions of the same model.

    A text is represented by its n-grams of one to three characters, with letter case: log(1 + count), times the inverse
    document frequency log((1 + texts) / (1 + texts with it)), scaled to length one. Each style is represented by the
    mean of its texts about the other questions, so that the subject does not give it away. A text is assigned to the
    style with the greatest cosine similarity (nearest centroid; Tibshirani et al. 2002, PNAS 99). For a model that
    ignores styles, one in thirteen is right by chance.

    Args:
        texts: answers of one model.
        styles: the requested style of each text.
        questions: the question of each text.
        usable: False for gibberish, which does not contribute to a centroid and counts as not recognised.
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
    """The diversity of samples for one prompt: 1 minus the mean similarity of two of them; None for fewer than two.

    The similarity is the Jaccard index of their word bigrams, case folded. Diversity is 0 if all texts are equal, and 1
    if no two share a bigram.
    """
    pairs = [_word_pairs(text) for text in texts]
    return mean([1.0 - len(one & two) / len(one | two) if one | two else 0.0 for one, two in combinations(pairs, 2)])


def share_of_marks(marks: Sequence[bool]) -> float:
    """The share of a style's marks that a text has."""
    return sum(marks) / len(marks)


def _word_pairs(text: str) -> set[tuple[str, ...]]:
    words = text.casefold().split()
    return {tuple(words[i : i + 2]) for i in range(max(1, len(words) - 1))} if words else set()


def _counts(texts: Sequence[str]) -> Array:
    """The count of each character n-gram in each text, `[texts, n-grams]`."""
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
