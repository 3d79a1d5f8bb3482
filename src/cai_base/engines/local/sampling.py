"""Drawing responses: many prompts at once, each from its own random stream, under several adapters.

Rows of one batch share the key-value cache of their longest common prefix until it is copied out to them (the few-shot
prefix is most of a prompt). A row's draw is the inverse of its cumulative distribution at a uniform number from the
request's own stream, so what else is in the batch changes nothing beyond rounding.
"""

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from cai_base import randomness
from cai_base.engines import Adapter, Sample, SampleRequest, Tokenizer
from cai_base.engines.local.lora import Bank


class Buffer(DynamicLayer):
    """A layer's keys and values in one buffer of fixed length, so that a step writes one column and copies nothing."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length
        self.used = 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.keys = key_states.new_empty(*key_states.shape[:2], self.length, key_states.shape[3])
            self.values = value_states.new_empty(*value_states.shape[:2], self.length, value_states.shape[3])
            self.is_initialized = True
        end = self.used + key_states.shape[2]
        self.keys[:, :, self.used : end] = key_states
        self.values[:, :, self.used : end] = value_states
        self.used = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_seq_length(self) -> int:
        return self.used


@dataclass(slots=True)
class Drawing:
    """One request on its way to a sample."""

    request: SampleRequest
    uniforms: np.ndarray[Any, np.dtype[np.float64]]
    tokens: list[int]
    text: str | None = None


def sample(
    model: PreTrainedModel, bank: Bank, tokenizer: Tokenizer, requests: Seq[SampleRequest], rows: int, packed: bool
) -> list[Sample]:
    """One sample a request, in order, `rows` at a time; requests of one adapter stand together."""
    order = sorted(range(len(requests)), key=lambda i: (requests[i].adapter or "", len(requests[i].prompt)))
    done: dict[int, Sample] = {}
    for start in range(0, len(order), rows):
        chunk = order[start : start + rows]
        drawn = _Batch(model, bank, tokenizer, [requests[i] for i in chunk], packed).run()
        done.update(zip(chunk, drawn, strict=True))
    return [done[i] for i in range(len(requests))]


class _Batch:
    """One batch: `[adapters * rows]` requests, rows of an adapter side by side, the short ones filled up."""

    def __init__(
        self, model: PreTrainedModel, bank: Bank, tokenizer: Tokenizer, requests: Seq[SampleRequest], packed: bool
    ) -> None:
        self.model, self.bank, self.tokenizer, self.packed = model, bank, tokenizer, packed
        self.drawings = [Drawing(r, randomness.stream("sample", r.seed).random(r.max_tokens), []) for r in requests]
        self.names: list[Adapter | None] = list(dict.fromkeys(r.adapter for r in requests))

    def run(self) -> list[Sample]:
        grid = self._grid()
        with torch.inference_mode(), self.bank.active(self.names):
            logits = self._prefill(grid)
            while True:
                self._draw(grid, logits)
                if all(row is None or row.text is not None for row in grid):
                    break
                grid = self._drop_finished(grid)
                logits = self._forward([row.tokens[-1] if row else 0 for row in grid])
        return [_finished(drawing, self.tokenizer) for drawing in self.drawings]

    def _grid(self) -> list[Drawing | None]:
        """The rows, adapter after adapter; `None` fills an adapter that has fewer rows than another."""
        groups = [[d for d in self.drawings if d.request.adapter == name] for name in self.names]
        width = max(len(group) for group in groups)
        return [row for group in groups for row in (*group, *[None] * (width - len(group)))]

    def _prefill(self, grid: list[Drawing | None]) -> Tensor:
        """Run the prompts through the model; the last position's logits, `[rows, vocabulary]`."""
        filler = self.drawings[0].request.prompt
        prompts = [row.request.prompt if row else filler for row in grid]
        shared = _common_prefix(prompts) if self.packed else 0
        rest = max(len(prompt) for prompt in prompts) - shared
        width = shared + rest
        tokens = np.zeros((len(grid), width), dtype=np.int64)
        present = np.zeros((len(grid), width), dtype=np.bool_)
        for i, prompt in enumerate(prompts):
            tail = width - (len(prompt) - shared)
            tokens[i, :shared], tokens[i, tail:] = prompt[:shared], prompt[shared:]
            present[i, :shared] = present[i, tail:] = True
        self.present = torch.from_numpy(present).to(self.model.device)
        self.lengths = self.present.sum(dim=1)
        ids = torch.from_numpy(tokens).to(self.model.device)
        if not self.packed:
            self.cache: Cache = DynamicCache(config=self.model.config)
            positions = (self.present.cumsum(dim=1) - 1).clamp(min=0)
            return self._logits(ids, positions, self.present.long())
        longest = width + max(d.request.max_tokens for d in self.drawings)
        layers = [Buffer(longest) for _ in range(self.model.config.num_hidden_layers)]
        self.cache = Cache(layers=layers)
        if shared:
            causal = torch.ones(shared, shared, dtype=torch.bool, device=ids.device).tril()
            every = len(grid) // len(self.names)
            positions = torch.arange(shared, device=ids.device)[None]
            self._logits(ids[::every, :shared], positions, causal[None, None].expand(len(self.names), 1, -1, -1))
            for layer in layers:
                layer.keys = layer.keys.repeat_interleave(every, dim=0)
                layer.values = layer.values.repeat_interleave(every, dim=0)
        ids, positions = ids[:, shared:], self.present.cumsum(dim=1)[:, shared:] - 1
        mask = self.present[:, None, :] & torch.ones(rest, width, dtype=torch.bool, device=ids.device).tril(shared)
        mask |= torch.eye(rest, width, dtype=torch.bool, device=ids.device).roll(shared, 1)  # filler sees itself
        return self._logits(ids, positions.clamp(min=0), mask[:, None])

    def _forward(self, tokens: list[int]) -> Tensor:
        """One more token for every row; its logits, `[rows, vocabulary]`."""
        self.present = torch.cat([self.present, self.present.new_ones(len(tokens), 1)], dim=1)
        positions = self.lengths[:, None]
        self.lengths = self.lengths + 1
        mask = self.present[:, None, None] if self.packed else self.present.long()
        return self._logits(torch.tensor(tokens, device=self.model.device)[:, None], positions, mask)

    def _logits(self, ids: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        out = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions.expand(len(ids), -1),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return cast(Tensor, out.logits[:, -1].float())

    def _draw(self, grid: list[Drawing | None], logits: Tensor) -> None:
        """Draw each unfinished row's next token from its own stream, and see whether that ends it."""
        live = [(i, row) for i, row in enumerate(grid) if row is not None and row.text is None]
        places = torch.tensor([i for i, _ in live], device=logits.device)
        uniforms = torch.tensor([float(row.uniforms[len(row.tokens)]) for _, row in live], dtype=torch.float64)
        temperatures = torch.tensor([row.request.temperature for _, row in live], dtype=torch.float64)
        chosen = draw(logits[places], temperatures.to(logits.device), uniforms.to(logits.device)).tolist()
        for (_, row), token in zip(live, chosen, strict=True):
            row.tokens.append(token)
            row.text = _ended(row, self.tokenizer)

    def _drop_finished(self, grid: list[Drawing | None]) -> list[Drawing | None]:
        """Leave finished rows out once that halves the batch. Adapters keep an equal number of rows."""
        every = len(grid) // len(self.names)
        groups = [range(start, start + every) for start in range(0, len(grid), every)]
        live = [[i for i in group if (row := grid[i]) is not None and row.text is None] for group in groups]
        width = max(len(group) for group in live)
        if not self.packed or width > every // 2:
            return grid
        keep, kept = [], []
        for group, rows in zip(groups, live, strict=True):
            spare = [i for i in group if i not in rows][: width - len(rows)]
            keep += [*rows, *spare]
            kept += [*[grid[i] for i in rows], *[None] * len(spare)]
        index = torch.tensor(keep, device=self.model.device)
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[index], layer.values[index]
        self.present, self.lengths = self.present[index], self.lengths[index]
        return kept


def draw(logits: Tensor, temperatures: Tensor, uniforms: Tensor) -> Tensor:
    """The token at which each row's cumulative probability passes its uniform number; at temperature 0 the largest.

    Args:
        logits: `[rows, vocabulary]`.
        temperatures, uniforms: `[rows]` in fp64.
    """
    greedy = logits.argmax(dim=-1)
    warm = torch.where(temperatures > 0, temperatures, 1.0)
    cumulative = (logits.double() / warm[:, None]).softmax(dim=-1).cumsum(dim=-1)
    passed = torch.searchsorted(cumulative, (uniforms * cumulative[:, -1])[:, None], right=True)[:, 0]
    return torch.where(temperatures > 0, passed.clamp(max=logits.shape[-1] - 1), greedy)


def _common_prefix(prompts: Seq[tuple[int, ...]]) -> int:
    """How many leading tokens all prompts share, at least one token of each left over."""
    first, last = min(prompts), max(prompts)
    length = min(len(prompt) for prompt in prompts) - 1
    return next((i for i in range(length) if first[i] != last[i]), length)


def _ended(row: Drawing, tokenizer: Tokenizer) -> str | None:
    """The response's text if the token just drawn ended it, else None."""
    if row.tokens[-1] in tokenizer.eos:
        return tokenizer.decode(row.tokens[:-1])
    if row.request.stop:
        # A stop of n characters spans at most n tokens, of which the last was drawn just now.
        tail = tokenizer.decode(row.tokens[-max(len(stop) for stop in row.request.stop) :])
        if any(stop in tail for stop in row.request.stop):
            text = tokenizer.decode(row.tokens)
            found = [text.find(stop) for stop in row.request.stop]
            return text[: min(at for at in found if at >= 0)]
    if len(row.tokens) == row.request.max_tokens:
        return tokenizer.decode(row.tokens)
    return None


def _finished(row: Drawing, tokenizer: Tokenizer) -> Sample:
    assert row.text is not None
    stopped = row.tokens[-1] in tokenizer.eos or len(row.text) < len(tokenizer.decode(row.tokens))
    return Sample(row.text, tuple(row.tokens), "stop" if stopped else "length")
