"""Packing a batch by its prefix trie.

The few-shot prefix is shared by all sequences of a batch, and the prompt by both sides of a preference pair. Laid out
as a trie, each shared token is computed once. A trie becomes one row of tokens, in which each token has the position
that it has in its own sequence and attends to its ancestors only. That is exactly what it would attend to alone, so
packed equals padded. The cost of attention grows with the square of a row's length, so a batch is divided into rows of
the length that costs least.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Tokens = Sequence[int]


@dataclass(frozen=True, slots=True)
class Row:
    """One row: tokens and positions `[length]`, ancestor mask `[length, length]` (True where a token may attend)."""

    tokens: Ints
    positions: Ints
    mask: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Place:
    """The location of one sequence: its row, and the column of each of its tokens."""

    row: int
    columns: Ints


@dataclass(frozen=True, slots=True)
class Packed:
    """A batch as rows, whose lengths may differ, and the location of every sequence, in the batch's order."""

    rows: list[Row]
    places: list[Place]


def pack(batches: Sequence[Sequence[Tokens]], attention_cost: float) -> list[Packed]:
    """Lay out each batch as prefix tries, in rows of about the length that costs least.

    Args:
        batches: the sequences of each batch; at least one in each, none of them empty.
        attention_cost: the cost of one attended token, as a fraction of one token's cost in the rest of the model.
    """
    ordered = [_Sorted(batch) for batch in batches]
    longest = max(max(batch.lengths) for batch in ordered)
    limit = max(sum(batch.lengths) - sum(batch.shared) for batch in ordered)
    cuts, best = [batch.cut(limit) for batch in ordered], float("inf")
    while True:
        # All batches go through the model as one rectangle: its cost depends on the longest row and the most rows.
        candidate = [batch.cut(limit) for batch in ordered]
        length = max(batch.row_length(*group) for batch, cut in zip(ordered, candidate, strict=True) for group in cut)
        cost = max(len(cut) for cut in candidate) * length * (1 + attention_cost * length)
        if cost < best:
            cuts, best = candidate, cost
        if limit <= longest:
            return [batch.rows(cut) for batch, cut in zip(ordered, cuts, strict=True)]
        limit = max(longest, int(limit * 0.8))


def pad(batch: Sequence[Tokens]) -> Packed:
    """One row per sequence, with nothing shared: the layout for models for which packing is not valid."""
    rows = [_trie([np.asarray(tokens, dtype=np.int64)], [0]) for tokens in batch]
    return Packed([row for row, _ in rows], [Place(i, columns) for i, (_, (columns,)) in enumerate(rows)])


def distinct_tokens(batch: Sequence[Tokens]) -> int:
    """How many tokens the prefix trie of a batch has."""
    ordered = _Sorted(batch)
    return sum(ordered.lengths) - sum(ordered.shared)


def padded_tokens(batch: Sequence[Tokens]) -> int:
    """How many tokens a batch has with one row a sequence, filler included."""
    return len(batch) * max(map(len, batch))


class _Sorted:
    """A batch sorted by tokens, so that sequences that share a prefix are adjacent.

    Attributes:
        lengths: the length of each sequence.
        shared: how many leading tokens each sequence has in common with the one before it.
    """

    def __init__(self, batch: Sequence[Tokens]) -> None:
        self.order = sorted(range(len(batch)), key=lambda i: tuple(batch[i]))
        self.tokens = [np.asarray(batch[i], dtype=np.int64) for i in self.order]
        self.lengths = [len(tokens) for tokens in self.tokens]
        self.shared = [0] + [_common(a, b) for a, b in zip(self.tokens, self.tokens[1:], strict=False)]

    def row_length(self, start: int, stop: int) -> int:
        """The length of one row that holds the sequences `[start, stop)`."""
        return sum(self.lengths[start:stop]) - sum(self.shared[start + 1 : stop])

    def cut(self, limit: int) -> list[tuple[int, int]]:
        """Ranges `[start, stop)` of sequences, one per row: as many as fit into `limit` tokens, at least one."""
        cut, start, length = [], 0, self.lengths[0]
        for i in range(1, len(self.tokens)):
            length += self.lengths[i] - self.shared[i]
            if length > limit:
                cut.append((start, i))
                start, length = i, self.lengths[i]
        return [*cut, (start, len(self.tokens))]

    def rows(self, cut: list[tuple[int, int]]) -> Packed:
        """The rows for the ranges that `cut` returned."""
        rows: list[Row] = []
        places: dict[int, Place] = {}
        for start, stop in cut:
            row, paths = _trie(self.tokens[start:stop], [0, *self.shared[start + 1 : stop]])
            places.update({i: Place(len(rows), path) for i, path in zip(self.order[start:stop], paths, strict=True)})
            rows.append(row)
        return Packed(rows, [places[i] for i in range(len(self.order))])


def _common(a: Ints, b: Ints) -> int:
    """Length of the longest common prefix."""
    length = min(len(a), len(b))
    differs = np.flatnonzero(a[:length] != b[:length])
    return int(differs[0]) if len(differs) else length


def _trie(sequences: list[Ints], shared: list[int]) -> tuple[Row, list[Ints]]:
    """One row for sorted sequences, each sharing `shared` leading tokens with the one before, and their columns."""
    length = sum(map(len, sequences)) - sum(shared)
    tokens, positions = np.empty(length, dtype=np.int64), np.empty(length, dtype=np.int64)
    mask = np.zeros((length, length), dtype=np.bool_)
    paths: list[Ints] = []
    done = 0
    for sequence, first in zip(sequences, shared, strict=True):
        new = np.arange(done, done + len(sequence) - first)
        path = np.concatenate([paths[-1][:first], new]) if first else new
        tokens[new], positions[new] = sequence[first:], np.arange(first, len(sequence))
        mask[np.ix_(new, path)] = np.tri(len(new), len(path), first, dtype=np.bool_)
        paths.append(path)
        done += len(new)
    return Row(tokens, positions, mask), paths
