"""Weighted log-probability sums, for several adapters' batches in one forward pass."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from cai_base.engines import Datum
from cai_base.engines.local.packing import Packed, pack, pad

HEAD_CHUNK = 4096
"""Tokens whose logits exist at a time: a vocabulary of 128k in fp32 takes 2 GB for so many."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How this model's batches are laid out.

    Attributes:
        packed: rows are prefix tries with ancestor masks; else one row a sequence and the model's own masks.
        own_head: the model's head does more than its output matrix (scales, soft caps), so its own forward is used.
        attention_cost: see `packing.pack`.
    """

    packed: bool
    own_head: bool
    attention_cost: float


def logprob_sums(model: PreTrainedModel, layout: Layout, batches: Sequence[Sequence[Datum]]) -> list[Tensor]:
    """The weighted log-probability sums of every batch, the i-th under the i-th active adapter.

    Returns:
        For each batch a tensor `[sequences]` in fp32.
    """
    return [grid.sum(dim=1) for grid in weighted_logprobs(model, layout, batches)]


def weighted_logprobs(model: PreTrainedModel, layout: Layout, batches: Sequence[Sequence[Datum]]) -> list[Tensor]:
    """The terms of `logprob_sums`.

    Returns:
        For each batch a tensor `[sequences, most weighted tokens]` in fp32: a sequence's weighted tokens in their
        order, each log-probability times its weight, then zeros.
    """
    tokens = [[sequence.tokens for sequence in batch] for batch in batches]
    laid = pack(tokens, layout.attention_cost) if layout.packed else [pad(batch) for batch in tokens]
    outputs = _outputs(model, layout, laid)
    head: nn.Module = nn.Identity() if layout.own_head else model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return [_grid(head, out, packed, batch) for out, packed, batch in zip(outputs, laid, batches, strict=True)]


def _outputs(model: PreTrainedModel, layout: Layout, laid: list[Packed]) -> tuple[Tensor, ...]:
    """What the model computes at every token: for each batch `[rows, length, features]`, or the logits (own head)."""
    rows = max(len(packed.rows) for packed in laid)
    length = max(len(row.tokens) for packed in laid for row in packed.rows)
    tokens = np.zeros((len(laid) * rows, length), dtype=np.int64)
    positions = np.zeros_like(tokens)
    mask = np.zeros((len(tokens), length, length) if layout.packed else tokens.shape, dtype=np.bool_)
    if layout.packed:
        # Filler sees itself alone, so that no row of attention is empty; nothing sees filler.
        mask[:, range(length), range(length)] = True
    for i, packed in enumerate(laid):
        for j, row in enumerate(packed.rows, start=i * rows):
            n = len(row.tokens)
            tokens[j, :n], positions[j, :n] = row.tokens, row.positions
            if layout.packed:
                mask[j, :n, :n] = row.mask
            else:
                mask[j, :n] = True
    inputs = {
        "input_ids": torch.from_numpy(tokens).to(model.device),
        "position_ids": torch.from_numpy(positions).to(model.device),
        "attention_mask": torch.from_numpy(mask[:, None] if layout.packed else mask.astype(np.int64)).to(model.device),
        "use_cache": False,
    }
    out: Tensor = model(**inputs).logits if layout.own_head else model.base_model(**inputs)[0]
    return out.view(len(laid), rows, length, -1).unbind()


def _grid(head: nn.Module, outputs: Tensor, packed: Packed, batch: Sequence[Datum]) -> Tensor:
    """One batch's part of `weighted_logprobs`, from its `outputs [rows, length, features]`."""
    weighted = [np.flatnonzero(sequence.weights) for sequence in batch]
    counts = [len(where) for where in weighted]

    def gather(values: Sequence[npt.NDArray[Any]]) -> Tensor:
        return torch.from_numpy(np.concatenate(values)).to(outputs.device)

    owner = gather([np.full(count, i) for i, count in enumerate(counts)])
    rank = gather([np.arange(count) for count in counts])
    row = gather([np.full(n, place.row) for n, place in zip(counts, packed.places, strict=True)])
    # The output at a token predicts the one after it.
    column = gather([place.columns[where - 1] for where, place in zip(weighted, packed.places, strict=True)])
    token = gather([np.asarray(s.tokens)[where] for s, where in zip(batch, weighted, strict=True)])
    weight = gather([np.asarray(s.weights)[where] for s, where in zip(batch, weighted, strict=True)])
    logprobs = _logprobs(head, outputs[row, column], token) * weight.float()
    # A grid to be summed along its rows: unlike adding up by index, this has one order of additions on every device.
    grid = logprobs.new_zeros(len(batch), max(1, *counts))
    return grid.index_put((owner, rank), logprobs)


def _logprobs(head: nn.Module, outputs: Tensor, token: Tensor) -> Tensor:
    """log p of `token [n]` at `outputs [n, features]`, in fp32; logits exist for `HEAD_CHUNK` of them at a time."""

    def chunk(part: Tensor, tokens: Tensor) -> Tensor:
        return -F.cross_entropy(head(part).float(), tokens, reduction="none")

    if len(outputs) <= HEAD_CHUNK:
        return chunk(outputs, token)
    parts = zip(torch.split(outputs, HEAD_CHUNK), torch.split(token, HEAD_CHUNK), strict=True)
    return torch.cat([checkpoint(chunk, *part, use_reentrant=False) for part in parts])


@contextmanager
def recomputation(model: PreTrainedModel) -> Iterator[None]:
    """Within it, decoder layers store only their inputs for the backward pass and compute the rest again (Chen et al.,
    arXiv 1604.06174): a third more work for a tenth of the memory."""
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
