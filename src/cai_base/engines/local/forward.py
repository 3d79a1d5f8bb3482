"""Weighted log-probability sums of several adapters' batches, in one forward pass."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from cai_base.engines import Datum
from cai_base.engines.local import large_head
from cai_base.engines.local.blocks import block_attention
from cai_base.engines.local.cache import CacheKind
from cai_base.engines.local.masks import Masks
from cai_base.engines.local.packing import Ints, Packed, pack, pad

HEAD_CHUNK = 4096
"""The most tokens whose logits are in memory at a time; with a vocabulary of 128k they take 2 GB in fp32."""

Head = Callable[[Tensor], Tensor]
"""From the decoder's last hidden states `[n, features]` to logits `[n, vocabulary]`."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the batches of one model are laid out.

    Attributes:
        packed: rows are prefix tries with ancestor masks; otherwise one row per sequence, with the model's own masks.
        own_head: the model's head does more than multiply by its output matrix (scaling, soft caps), so the model's
            own forward makes the logits of the last hidden states.
        attention_cost: see `packing.pack`.
        cache: where keys and values are kept while responses are drawn; `transformers` if the layout is padded.
    """

    packed: bool
    own_head: bool
    attention_cost: float
    cache: CacheKind = "transformers"


class Recorder(Protocol):
    """Another way through the decoder, for some shapes."""

    def length(self, rows: int, length: int) -> int:
        """How long to make the rows of a pass that need `length` tokens."""
        ...

    def hidden(self, inputs: dict[str, Any]) -> Tensor | None:
        """The decoder's last hidden states, from the model's arguments; None for another shape."""
        ...


def logprob_sums(
    model: PreTrainedModel,
    layout: Layout,
    batches: Sequence[Sequence[Datum]],
    recorder: Recorder | None = None,
) -> list[Tensor]:
    """The weighted log-probability sums of every batch, batch i under the i-th active adapter.

    Args:
        recorder: is asked before the model's own decoder.

    Returns:
        For each batch a tensor `[sequences]` in fp32.
    """
    return [grid.sum(dim=1) for grid in weighted_logprobs(model, layout, batches, recorder)]


def weighted_logprobs(
    model: PreTrainedModel,
    layout: Layout,
    batches: Sequence[Sequence[Datum]],
    recorder: Recorder | None = None,
) -> list[Tensor]:
    """The terms of the sums that `logprob_sums` returns; its arguments are these.

    Returns:
        For each batch a tensor `[sequences, n]` in fp32, where n is the largest number of weighted tokens of a
        sequence: each weighted token's log-probability times its weight, in order, padded with zeros.
    """
    tokens = [[sequence.tokens for sequence in batch] for batch in batches]
    packings = pack(tokens, layout.attention_cost) if layout.packed else [pad(batch) for batch in tokens]
    inputs = model_inputs(model, packings, packed=layout.packed, recorder=recorder)
    targets = [_targets(packed, batch) for packed, batch in zip(packings, batches, strict=True)]
    hidden = None if recorder is None else recorder.hidden(inputs)
    with block_attention(model, inputs, packed=layout.packed):
        outputs = model.base_model(**inputs)[0] if hidden is None else hidden
    matrix = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    head = partial(own_logits, model) if layout.own_head else matrix
    by_batch = outputs.view(len(packings), -1, *outputs.shape[1:]).unbind()
    return [_grid(head, out, target, len(batch)) for out, target, batch in zip(by_batch, targets, batches, strict=True)]


class _Output:
    """Stands in for the output of a model's decoder: the last hidden states, and None for whatever else is asked."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden

    def __getitem__(self, place: Any) -> Any:
        return (self.last_hidden_state,)[place]

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def own_logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """The logits `[n, vocabulary]` that the model's own forward makes of the decoder's last hidden states
    `[n, features]`, scaled and capped as it does. Only the head is computed."""
    decoder = model.base_model
    decoder.forward = lambda *_, **__: _Output(hidden[None])
    try:
        tokens = torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
        logits: Tensor = model(input_ids=tokens, use_cache=False).logits
    finally:
        del decoder.forward
    return logits[0]


def model_inputs(
    model: PreTrainedModel, packings: list[Packed], *, packed: bool, recorder: Recorder | None = None
) -> dict[str, Any]:
    """The arguments of the model's forward for these batches, as one rectangle `[batches * rows, length]`."""
    rows = max(len(batch.rows) for batch in packings)
    length = max(len(row.tokens) for batch in packings for row in batch.rows)
    if recorder is not None:
        length = recorder.length(len(packings) * rows, length)
    tokens = np.zeros((len(packings) * rows, length), dtype=np.int64)
    positions = np.zeros_like(tokens)
    mask = np.zeros((len(tokens), length, length) if packed else tokens.shape, dtype=np.bool_)
    if packed:
        # Filler attends only to itself, so that no row of the attention matrix is empty; nothing attends to filler.
        mask[:, range(length), range(length)] = True
    for i, batch in enumerate(packings):
        for j, row in enumerate(batch.rows, start=i * rows):
            n = len(row.tokens)
            tokens[j, :n], positions[j, :n] = row.tokens, row.positions
            if packed:
                mask[j, :n, :n] = row.mask
            else:
                mask[j, :n] = True
    position_ids = torch.from_numpy(positions).to(model.device)
    attention: Any = torch.from_numpy(mask[:, None] if packed else mask.astype(np.int64)).to(model.device)
    return {
        "input_ids": torch.from_numpy(tokens).to(model.device),
        "position_ids": position_ids,
        "attention_mask": Masks.of(model).make(attention, position_ids, position_ids) if packed else attention,
        "use_cache": False,
    }


@dataclass(frozen=True, slots=True)
class _Targets:
    """The weighted tokens of a batch, one entry each.

    Attributes:
        owner: the index of its sequence.
        rank: its index among that sequence's weighted tokens.
        row, column: the location of the output that predicts it.
        token, weight: the token and its weight.
    """

    owner: Ints
    rank: Ints
    row: Ints
    column: Ints
    token: Ints
    weight: npt.NDArray[np.float64]


def _targets(packed: Packed, batch: Sequence[Datum]) -> _Targets:
    weighted = [np.flatnonzero(sequence.weights) for sequence in batch]
    counts = [len(where) for where in weighted]
    return _Targets(
        np.concatenate([np.full(count, i) for i, count in enumerate(counts)]),
        np.concatenate([np.arange(count) for count in counts]),
        np.concatenate([np.full(n, place.row) for n, place in zip(counts, packed.places, strict=True)]),
        # The output at a token predicts the next token.
        np.concatenate([place.columns[where - 1] for where, place in zip(weighted, packed.places, strict=True)]),
        np.concatenate([np.asarray(s.tokens)[where] for s, where in zip(batch, weighted, strict=True)]),
        np.concatenate([np.asarray(s.weights)[where] for s, where in zip(batch, weighted, strict=True)]),
    )


def _grid(head: Head, outputs: Tensor, targets: _Targets, sequences: int) -> Tensor:
    """The result of `weighted_logprobs` for one batch, from its `outputs [rows, columns, features]`."""

    def on_device(values: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(values).to(outputs.device)

    predicting = outputs[on_device(targets.row), on_device(targets.column)]
    logprobs = _logprobs(head, predicting, on_device(targets.token)) * on_device(targets.weight).float()
    # A grid is summed along its rows, in one fixed order on every device; index_add would not guarantee an order.
    grid = logprobs.new_zeros(sequences, max(1, int(targets.rank.max(initial=0)) + 1))
    return grid.index_put((on_device(targets.owner), on_device(targets.rank)), logprobs)


def _logprobs(head: Head, outputs: Tensor, token: Tensor) -> Tensor:
    """The log-probabilities of `token [n]` given `outputs [n, features]`, in fp32, in chunks of `HEAD_CHUNK` tokens."""

    if large_head.takes(head):
        return large_head.token_logprobs(cast(nn.Linear, head), outputs, token)

    def chunk(part: Tensor, tokens: Tensor) -> Tensor:
        return -F.cross_entropy(head(part).float(), tokens, reduction="none")

    if len(outputs) <= HEAD_CHUNK:
        return chunk(outputs, token)
    parts = zip(torch.split(outputs, HEAD_CHUNK), torch.split(token, HEAD_CHUNK), strict=True)
    return torch.cat([checkpoint(chunk, *part, use_reentrant=False) for part in parts])


@contextmanager
def recomputation(model: PreTrainedModel) -> Iterator[None]:
    """Gradient checkpointing (Chen et al., arXiv 1604.06174) while the context lasts: decoder layers store only their
    inputs and recompute the rest in the backward pass, a third more work for a tenth of the memory."""
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
