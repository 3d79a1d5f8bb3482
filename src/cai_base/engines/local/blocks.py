"""Attention in packed rows on a CPU, which leaves out what no token of a block looks at.

In a row that holds a trie a token attends to its own sequence, and so to a fifth of the row where eight answers stand
behind one few-shot prefix. PyTorch's attention for CPUs computes all scores and masks them. Here the queries are taken
in blocks, each with the columns that one of its queries attends to; within a block the same kernel does the work, so
that the result is that of the whole row up to rounding. A mask that no pass of the engine has made known is left to
transformers.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

SDPA = "sdpa"
"""What transformers calls its attention by this kernel."""
LEAST = 800
"""Tokens of a row below which nothing is left out: the gain is small there, and a result keeps its very bits."""
BLOCK = 256
"""Queries in one block. Fewer leave out more, and make smaller matrix products, which are slow where heads are wide."""
GAP = 16
"""Columns that nobody looks at and that are computed all the same, where leaving them out would divide a block."""

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True, slots=True)
class Block:
    """Queries `[start, stop)` of one row, the ranges of columns that they look at, and what is added to their scores,
    `[1, 1, queries, columns]`."""

    start: int
    stop: int
    ranges: tuple[tuple[int, int], ...]
    added: Tensor

    def columns(self, of: Tensor) -> Tensor:
        """The columns of these ranges from `[1, heads, length, features]`."""
        parts = [of[:, :, first:last] for first, last in self.ranges]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 2)

    def add(self, gradient: Tensor, to: Tensor) -> None:
        """Add the gradient of `columns` to that of what they were taken from."""
        at = 0
        for first, last in self.ranges:
            to[:, :, first:last] += gradient[:, :, at : at + last - first]
            at += last - first


def blocks_of(mask: npt.NDArray[np.bool_], dtype: torch.dtype) -> list[Block]:
    """The blocks of one row, from its mask `[length, length]`, true where a query may look."""
    blocks = []
    for start in range(0, len(mask), BLOCK):
        part = mask[start : start + BLOCK]
        ranges = _ranges(np.flatnonzero(part.any(axis=0)))
        seen = torch.from_numpy(np.concatenate([part[:, first:last] for first, last in ranges], axis=1))
        added = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, float("-inf"))
        blocks.append(Block(start, start + len(part), ranges, added[None, None]))
    return blocks


def _ranges(columns: npt.NDArray[np.int64]) -> tuple[tuple[int, int], ...]:
    """Ranges `[first, last)` that hold these columns, and gaps of fewer than `GAP`."""
    cuts = np.flatnonzero(np.diff(columns) > GAP)
    firsts, lasts = columns[[0, *(cuts + 1)]], columns[[*cuts, -1]] + 1
    return tuple(zip(firsts.tolist(), lasts.tolist(), strict=True))


Place = tuple[int, tuple[int, ...], tuple[int, ...], int]
"""Where a mask is in memory, its shape and strides, and how often it was changed."""


class _Masks(threading.local):
    """The masks of the pass that this thread makes, and the blocks of their rows once a layer has asked for them."""

    def __init__(self) -> None:
        self.known: dict[Place, Tensor] = {}
        self._blocks: dict[Place, list[list[Block]]] = {}

    def begin(self, masks: list[Tensor]) -> None:
        """Know these masks, and no other."""
        self.known, self._blocks = {_place(mask): mask for mask in masks}, {}

    def blocks(self, mask: Tensor, dtype: torch.dtype) -> list[list[Block]] | None:
        """The blocks of each row; None for a mask that is not known, such as one that a layer has made itself."""
        place = _place(mask)
        if place not in self.known:
            return None
        if place not in self._blocks:
            self._blocks[place] = [blocks_of(row, dtype) for row in self.known[place][:, 0].numpy()]
        return self._blocks[place]


def _place(mask: Tensor) -> Place:
    """Tells a known mask from any other: while it lives, only it and its views are where it is in memory."""
    return mask.data_ptr(), tuple(mask.shape), mask.stride(), 0 if mask.is_inference() else mask._version


_masks = _Masks()


@contextmanager
def block_attention(model: PreTrainedModel, inputs: dict[str, Any], *, packed: bool) -> Iterator[None]:
    """Within it the masks of `inputs` are known, where they are long packed rows in fp32 on a CPU.

    Args:
        inputs: see `forward.model_inputs`.
    """
    uses_kernel = model.config.get_text_config()._attn_implementation == SDPA
    in_float32 = model.device.type == "cpu" and model.dtype == torch.float32  # in bfloat16 nothing is gained
    if not (packed and uses_kernel and in_float32) or inputs["input_ids"].shape[1] < LEAST:
        yield
        return
    masks = inputs["attention_mask"]
    _masks.begin([masks] if isinstance(masks, Tensor) else list(masks.values()))
    try:
        yield
    finally:
        _masks.begin([])


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """Attention `[rows, queries, heads, features]` under a known mask, and transformers' own under any other.

    Args:
        module: the layer's attention.
        query, key, value: `[rows, heads, length, features]`; keys and values may have fewer heads.
        attention_mask: `[rows, 1, length, length]`, true where a query may look.
        scaling: of the scores.
        more: what else transformers gives to its own.
    """
    blocks = _masks.blocks(attention_mask, query.dtype) if _masks.known and attention_mask is not None else None
    if attention_mask is None or blocks is None or not _is_plain(query, key, value, attention_mask, more):
        result: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **more
        )
        return result
    groups = query.shape[1] // key.shape[1]
    out = _Attention.apply(query, repeat_kv(key, groups), repeat_kv(value, groups), blocks, scaling)  # type: ignore[no-untyped-call]
    return out, None


def _is_plain(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, more: dict[str, Any]) -> bool:
    """Whether the kernel takes these as they are: it checks nothing itself."""
    rows, heads, length, features = query.shape
    fit = key.shape == value.shape == (rows, key.shape[1], length, features) and heads % key.shape[1] == 0
    dense = all(one.stride(-1) == 1 for one in (query, key, value))
    asks_more = any(more.get(name) for name in ("dropout", "softcap", "output_attentions")) or any(
        more.get(name) is not None for name in ("position_bias", "cache", "s_aux")
    )
    return fit and dense and mask.shape == (rows, 1, length, length) and not asks_more


class _Attention(torch.autograd.Function):
    """The kernel and its gradient, block by block."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, blocks: list[list[Block]], scale: float | None
    ) -> Tensor:
        rows, heads, length, features = query.shape
        out = query.new_empty(rows, length, heads, features)
        masses = []
        for row, of_row in enumerate(blocks):
            q, k, v = (part[row : row + 1] for part in (query, key, value))
            for block in of_row:
                inside = slice(block.start, block.stop)
                values, mass = _forward(
                    q[:, :, inside], block.columns(k), block.columns(v), attn_mask=block.added, scale=scale
                )
                out[row, inside] = values[0].transpose(0, 1)
                masses.append(mass)
        ctx.save_for_backward(query, key, value, out, *masses)
        ctx.blocks, ctx.scale = blocks, scale
        return out

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, *masses = ctx.saved_tensors
        to_query, to_key, to_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        result, to_result, mass = out.transpose(1, 2), upstream[0].transpose(1, 2), iter(masses)
        for row, of_row in enumerate(ctx.blocks):
            one = slice(row, row + 1)
            for block in of_row:
                at = (one, slice(None), slice(block.start, block.stop))
                of_query, of_key, of_value = _backward(
                    to_result[at],
                    query[at],
                    block.columns(key[one]),
                    block.columns(value[one]),
                    result[at],
                    next(mass),
                    0.0,
                    False,
                    attn_mask=block.added,
                    scale=ctx.scale,
                )
                to_query[at] = of_query
                block.add(of_key, to_key[one])
                block.add(of_value, to_value[one])
        return to_query, to_key, to_value, None, None


# Under transformers' own name: some models have code of their own for every other name (Falcon's adds a mask of truth
# values to the scores).
ALL_ATTENTION_FUNCTIONS[SDPA] = attention
