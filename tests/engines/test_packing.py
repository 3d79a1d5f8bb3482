"""The prefix trie itself, without a model."""

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cai_base.engines.local.packing import Packed, pack, pad

# Few different tokens, so that shared prefixes, prefixes of others and duplicates are common.
batches = st.lists(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=8), min_size=1, max_size=3
)
costs = st.sampled_from([0.0, 0.01, 0.3, 10.0])


def assert_is_the_batch(packed: Packed, batch: list[list[int]]) -> None:
    ancestors = [np.zeros_like(row.mask) for row in packed.rows]
    used = [np.zeros(len(row.tokens), dtype=bool) for row in packed.rows]
    assert len(packed.places) == len(batch)
    for place, tokens in zip(packed.places, batch, strict=True):
        row, path = packed.rows[place.row], place.columns
        assert row.tokens[path].tolist() == tokens
        assert row.positions[path].tolist() == list(range(len(tokens)))
        for k in range(len(path)):
            ancestors[place.row][path[k], path[: k + 1]] = True
        used[place.row][path] = True
    for row, expected, filled in zip(packed.rows, ancestors, used, strict=True):
        assert np.array_equal(row.mask, expected)
        assert filled.all(), "a token belongs to no sequence"


@given(batches, costs)
@example([[[0, 1], [0, 1], [0], [0, 1, 2]]], 0.0)
@settings(max_examples=300, deadline=None)
def test_every_path_has_the_tokens_of_its_sequence_and_attends_only_to_its_ancestors(
    batch: list[list[list[int]]], cost: float
) -> None:
    for packed, sequences in zip(pack(batch, cost), batch, strict=True):
        assert_is_the_batch(packed, sequences)


@given(batches)
@settings(max_examples=50, deadline=None)
def test_padding_shares_nothing(batch: list[list[list[int]]]) -> None:
    packed = pad(batch[0])
    assert_is_the_batch(packed, batch[0])
    assert [place.row for place in packed.places] == list(range(len(batch[0])))


@given(batches)
@settings(max_examples=100, deadline=None)
def test_if_attention_costs_nothing_each_distinct_prefix_is_computed_once(batch: list[list[list[int]]]) -> None:
    biggest = max(len({tuple(s[: k + 1]) for s in sequences for k in range(len(s))}) for sequences in batch)
    packed = pack(batch, 0.0)
    rectangle = max(len(p.rows) for p in packed) * max(len(row.tokens) for p in packed for row in p.rows)
    assert rectangle == biggest


def test_if_attention_is_expensive_rows_are_short() -> None:
    batch = [[[0] * 5 + [i] * 10 for i in range(1, 9)]]
    (cheap,), (dear,) = pack(batch, 0.0), pack(batch, 10.0)
    assert len(cheap.rows) == 1
    assert len(dear.rows) == 8
