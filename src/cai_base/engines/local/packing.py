"""Packing a batch by its prefix trie.

The few-shot prefix is shared by all sequences of a batch, and the prompt by both sides of a preference pair. Laid out as
a trie, each shared token is computed once. A trie becomes one row of tokens in which a token sits at the position that
it has in its own sequence and attends to its ancestors only, which is exactly what it would attend to alone: packed
equals padded. Attention grows with the square of a row, so a batch is cut into the number of rows that costs least.
"""

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cai_base.engines import Sequence

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Targets:
    """Where the weighted tokens of a batch are predicted. All arrays have one entry a weighted token.

    Attributes:
        row, column: the place whose output predicts the token.
        token: the token.
        sequence: the index of its sequence in the batch.
        weight: its weight.
    """

    row: Ints
    column: Ints
    token: Ints
    sequence: Ints
    weight: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Row:
    """One row: tokens and positions `[length]`, ancestor mask `[length, length]` (True where a row may look)."""

    tokens: Ints
    positions: Ints
    mask: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Packed:
    """A batch as rows of possibly different length, and its targets."""

    rows: list[Row]
    targets: Targets


def pack(sequences: Seq[Sequence], attention_cost: float) -> Packed:
    """Lay `sequences` out as prefix tries, in the number of rows that costs least.

    Args:
        sequences: the batch.
        attention_cost: what one attended token costs, as a share of what one token costs elsewhere in the model.
    """
    order = sorted(range(len(sequences)), key=lambda i: sequences[i].tokens)
    groups = _cheapest_groups([sequences[i].tokens for i in order], attention_cost)
    rows: list[Row] = []
    row, column, token, owner, weight = [], [], [], [], []
    for start, stop in groups:
        members = order[start:stop]
        packed, paths = _trie([sequences[i].tokens for i in members])
        for i, path in zip(members, paths, strict=True):
            weights = np.asarray(sequences[i].weights)
            weighted = np.flatnonzero(weights)
            row.append(np.full(len(weighted), len(rows)))
            column.append(path[weighted - 1])
            token.append(np.asarray(sequences[i].tokens)[weighted])
            owner.append(np.full(len(weighted), i))
            weight.append(weights[weighted])
        rows.append(packed)
    join = np.concatenate
    return Packed(rows, Targets(join(row), join(column), join(token), join(owner), join(weight)))


def pad(sequences: Seq[Sequence]) -> Packed:
    """One row a sequence, nothing shared: the layout for models in which packing is not valid."""
    rows = [_trie([s.tokens])[0] for s in sequences]
    weighted = [np.flatnonzero(s.weights) for s in sequences]
    join = np.concatenate
    return Packed(
        rows,
        Targets(
            row=join([np.full(len(w), i) for i, w in enumerate(weighted)]),
            column=join([w - 1 for w in weighted]),
            token=join([np.asarray(s.tokens)[w] for s, w in zip(sequences, weighted, strict=True)]),
            sequence=join([np.full(len(w), i) for i, w in enumerate(weighted)]),
            weight=join([np.asarray(s.weights)[w] for s, w in zip(sequences, weighted, strict=True)]),
        ),
    )


def _shared(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """Length of the longest common prefix."""
    length = min(len(a), len(b))
    differs = np.flatnonzero(np.asarray(a[:length]) != np.asarray(b[:length]))
    return int(differs[0]) if len(differs) else length


def _cheapest_groups(tokens: list[tuple[int, ...]], attention_cost: float) -> list[tuple[int, int]]:
    """Cut the sorted sequences into runs `[start, stop)`, one a row, filled greedily up to the cheapest row length."""
    shared = [0] + [_shared(a, b) for a, b in zip(tokens, tokens[1:], strict=False)]
    longest = max(len(t) for t in tokens)
    limit = sum(len(t) - s for t, s in zip(tokens, shared, strict=True))
    best, best_cost = [(0, len(tokens))], float("inf")
    while True:
        groups, lengths = _fill(tokens, shared, limit)
        cost = len(groups) * max(lengths) * (1 + attention_cost * max(lengths))
        if cost < best_cost:
            best, best_cost = groups, cost
        if limit <= longest:
            return best
        limit = max(longest, int(limit * 0.7))


def _fill(tokens: list[tuple[int, ...]], shared: list[int], limit: int) -> tuple[list[tuple[int, int]], list[int]]:
    groups, lengths, start = [], [], 0
    length = len(tokens[0])
    for i in range(1, len(tokens)):
        grown = length + len(tokens[i]) - shared[i]
        if grown > limit:
            groups.append((start, i))
            lengths.append(length)
            start, grown = i, len(tokens[i])
        length = grown
    return [*groups, (start, len(tokens))], [*lengths, length]


def _trie(tokens: list[tuple[int, ...]]) -> tuple[Row, list[Ints]]:
    """One row for sorted sequences, and for each the columns that its tokens stand in."""
    flat: list[int] = []
    paths: list[Ints] = []
    shared = 0
    for i, sequence in enumerate(tokens):
        shared = _shared(tokens[i - 1], sequence) if i else 0
        new = np.arange(len(flat), len(flat) + len(sequence) - shared)
        flat.extend(sequence[shared:])
        paths.append(np.concatenate([paths[-1][:shared], new]) if i else new)
    positions = np.zeros(len(flat), dtype=np.int64)
    mask = np.zeros((len(flat), len(flat)), dtype=np.bool_)
    done = 0
    for path in paths:
        first = int(np.searchsorted(path, done))  # columns before `first` were placed by an earlier sequence
        new = path[first:]
        positions[new] = np.arange(first, len(path))
        mask[np.ix_(new, path[:first])] = True
        mask[np.ix_(new, new)] = np.tri(len(new), dtype=np.bool_)
        done += len(new)
    return Row(np.asarray(flat, dtype=np.int64), positions, mask), paths
