"""Random streams by address."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cai_base import randomness

parts = st.lists(st.one_of(st.text(max_size=5), st.integers(-5, 5)), max_size=4)


def test_a_draw_depends_on_its_address_alone() -> None:
    first = randomness.stream(3, "revision", "prompt-1", "principle").random(4)
    randomness.stream(3, "revision", "prompt-2", "principle").random(100)
    again = randomness.stream(3, "revision", "prompt-1", "principle").random(4)
    assert np.array_equal(first, again)


@given(parts, parts)
def test_different_addresses_have_different_streams(a: list[str | int], b: list[str | int]) -> None:
    assert (randomness.key(*a) == randomness.key(*b)) == (repr(tuple(a)) == repr(tuple(b)))


def test_streams_do_not_change_between_versions() -> None:
    assert randomness.seed(0, "sft", "adapter") == 7752279586859187784
    assert randomness.stream(0, "dpo", 1, "order").permutation(5).tolist() == [3, 1, 4, 0, 2]
