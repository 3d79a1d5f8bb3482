"""Weighted log-probability sums, for several adapters' batches in one forward pass."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from cai_base.engines import Sequence
from cai_base.engines.local.packing import Packed, pack, pad

HEAD_CHUNK = 4096
"""Positions whose logits exist at a time: a vocabulary of 128k in fp32 takes 2 GB for so many."""


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


def logprob_sums(model: PreTrainedModel, layout: Layout, batches: Seq[Seq[Sequence]]) -> tuple[list[Tensor], list[int]]:
    """The weighted log-probability sums of every batch, the i-th under the i-th active adapter.

    Returns:
        For each batch a tensor `[sequences]` in fp32, and the number of tokens that were laid out for it.
    """
    laid = [pack(batch, layout.attention_cost) if layout.packed else pad(batch) for batch in batches]
    hidden = _outputs(model, layout, laid)  # [adapters, rows, length, features or vocabulary]
    sums = []
    for index, packed in enumerate(laid):
        targets = packed.targets
        place, inverse = np.unique(targets.row * hidden.shape[2] + targets.column, return_inverse=True)
        device = hidden.device
        selected = hidden[index].flatten(0, 1)[torch.from_numpy(place).to(device)]
        logprob = _token_logprobs(
            nn.Identity() if layout.own_head else model.get_output_embeddings(),
            selected,
            torch.from_numpy(inverse).to(device),
            torch.from_numpy(targets.token).to(device),
        )
        weighted = logprob * torch.from_numpy(targets.weight).to(device, torch.float32)
        zero = torch.zeros(len(batches[index]), device=device)
        sums.append(zero.index_add(0, torch.from_numpy(targets.sequence).to(device), weighted))
    return sums, [sum(len(row.tokens) for row in packed.rows) for packed in laid]


def _outputs(model: PreTrainedModel, layout: Layout, laid: list[Packed]) -> Tensor:
    rows = max(len(packed.rows) for packed in laid)
    length = max(len(row.tokens) for packed in laid for row in packed.rows)
    tokens = np.zeros((len(laid), rows, length), dtype=np.int64)
    positions = np.zeros_like(tokens)
    present = np.zeros(tokens.shape, dtype=np.bool_)
    # Filler sees itself alone, so that no row of attention is empty; nothing sees filler.
    mask = np.broadcast_to(np.eye(length, dtype=np.bool_), (len(laid), rows, length, length)).copy()
    for i, packed in enumerate(laid):
        for j, row in enumerate(packed.rows):
            n = len(row.tokens)
            tokens[i, j, :n], positions[i, j, :n], present[i, j, :n] = row.tokens, row.positions, True
            mask[i, j, :n, :n] = row.mask
    device = model.device
    inputs = {
        "input_ids": torch.from_numpy(tokens).flatten(0, 1).to(device),
        "position_ids": torch.from_numpy(positions).flatten(0, 1).to(device),
        "use_cache": False,
    }
    if layout.packed:
        inputs["attention_mask"] = torch.from_numpy(mask).flatten(0, 1)[:, None].to(device)
    else:
        inputs["attention_mask"] = torch.from_numpy(present).long().flatten(0, 1).to(device)
    out: Tensor = model(**inputs).logits if layout.own_head else model.base_model(**inputs)[0]
    return out.view(len(laid), rows, length, -1)


def _token_logprobs(head: nn.Module, hidden: Tensor, place: Tensor, token: Tensor) -> Tensor:
    """log p of `token[i]` at output `hidden[place[i]]`; logits exist for `HEAD_CHUNK` places at a time."""

    def chunk(part: Tensor, places: Tensor, tokens: Tensor) -> Tensor:
        logits = head(part).float()
        return logits[places, tokens] - logits.logsumexp(dim=-1)[places]

    if len(hidden) <= HEAD_CHUNK:
        return chunk(hidden, place, token)
    out = hidden.new_zeros(len(token), dtype=torch.float32)
    for start in range(0, len(hidden), HEAD_CHUNK):
        here = ((place >= start) & (place < start + HEAD_CHUNK)).nonzero()[:, 0]
        part = checkpoint(
            chunk, hidden[start : start + HEAD_CHUNK], place[here] - start, token[here], use_reentrant=False
        )
        out = out.index_add(0, here, part)
    return out
