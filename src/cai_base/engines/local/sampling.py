"""Batched sampling: many prompts at once under several adapters, each request with its own random stream.

The longest common prefix of a batch's prompts (usually the few-shot turns, most of a prompt) is computed once per
adapter, and kept for the next batch that has it. A token is drawn by inverting the cumulative distribution at a
uniform number from the request's own stream, so the rest of the batch does not affect it, except through rounding.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache

from cai_base import randomness
from cai_base.engines import Adapter, Sample, SampleListener, SampleRequest, Tokenizer
from cai_base.engines.local.cache import Buffer, CacheKind, Columns, KeptPrefixes, prefix_attention, token_bytes
from cai_base.engines.local.lora import Bank
from cai_base.engines.local.masks import Masks, reads_window
from cai_base.engines.local.ordered import OrderedWeights

COMPACTION_SHARE = 0.75
"""Finished rows are dropped once at most this share of the batch is unfinished, because it copies the whole cache."""
BLOCK = 512
"""Tokens in a block of a large vocabulary."""
KEPT_SHARE = 8
"""Prefixes that are kept for later batches take at most this fraction (1/n) of the bytes of a batch's cache."""
WHOLE = 8192
"""The largest vocabulary whose whole distribution is computed in fp64."""


class Sampler:
    """Samples responses from a model under the adapters of a bank.

    Args:
        model: frozen; the bank has replaced its linear layers.
        bank: the adapters.
        tokenizer: the model's.
        rows: the most responses sampled at a time.
        cache_bytes: the most bytes of keys and values; long sequences reduce the number of rows.
    """

    def __init__(self, model: PreTrainedModel, bank: Bank, tokenizer: Tokenizer, rows: int, cache_bytes: int) -> None:
        self.model, self.bank = model, bank
        self._rows, self._cache_bytes = rows, cache_bytes
        self._ends = Ends(tokenizer)
        self._prefixes = KeptPrefixes(cache_bytes // KEPT_SHARE)
        self.ordered = OrderedWeights(model)

    def sample(
        self, requests: Sequence[SampleRequest], *, cache: CacheKind, listener: SampleListener | None = None
    ) -> list[Sample]:
        """One response per request, in order. `cache` says where their keys and values are kept."""
        done: dict[int, Sample] = {}
        for groups in self._batches(requests):
            drawings = {
                name: [
                    Drawing(requests[i], self._ends, None if listener is None else partial(listener, i)) for i in group
                ]
                for name, group in groups.items()
            }
            with self.ordered.used():
                SampledBatch(self.model, self.bank, drawings, self._prefixes, cache).run()
            for name, group in groups.items():
                done.update({i: drawing.finished() for i, drawing in zip(group, drawings[name], strict=True)})
        return [done[i] for i in range(len(requests))]

    def _batches(self, requests: Sequence[SampleRequest]) -> Iterator[dict[Adapter | None, list[int]]]:
        """The requests of each batch, as indices by adapter; the rows are shared equally among the adapters with
        requests."""
        size = token_bytes(self.model.config.get_text_config(), self.model.dtype.itemsize)
        longest = max((len(r.prompt) + r.max_tokens for r in requests), default=1)
        rows = max(1, min(self._rows, self._cache_bytes // (size * longest)))
        queues: dict[Adapter | None, list[int]] = {}
        for i in sorted(range(len(requests)), key=lambda i: len(requests[i].prompt)):
            queues.setdefault(requests[i].adapter, []).append(i)
        while queues:
            names = list(queues)[:rows]
            share = rows // len(names)
            yield {name: queues[name][:share] for name in names}
            rest = {name: queue[share:] if name in names else queue for name, queue in queues.items()}
            queues = {name: queue for name, queue in rest.items() if queue}


class Ends:
    """Detects the end of a response. Tokens that cannot complete a stop string are skipped by a cache of their
    texts."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._texts: dict[int, str] = {}

    def sample(self, request: SampleRequest, tokens: list[int]) -> Sample | None:
        """The response if its last token ends it, else None."""
        at_end, full = tokens[-1] in self.tokenizer.eos, len(tokens) == request.max_tokens
        if not (at_end or full or self._stops_in_sight(request.stop, tokens)):
            return None
        text = self.tokenizer.decode(tokens[:-1] if at_end else tokens)
        stops = [at for stop in request.stop if (at := text.find(stop)) >= 0]
        return Sample(text[: min(stops, default=None)], tuple(tokens), "stop" if at_end or stops else "length")

    def _stops_in_sight(self, stops: tuple[str, ...], tokens: list[int]) -> bool:
        """Whether the last token may have completed a stop string."""
        if tokens[-1] not in self._texts:
            self._texts[tokens[-1]] = self.tokenizer.decode(tokens[-1:])
        text = self._texts[tokens[-1]]
        # A token that is part of a character decodes to U+FFFD, and some tokenizers strip a token's leading space.
        if "\ufffd" not in text and not any(stop[-1] in text or stop[-1].isspace() for stop in stops):
            return False
        # A stop string of n bytes spans at most n tokens, and one more because of the stripped space.
        longest = max((len(stop.encode()) for stop in stops), default=0)
        tail = self.tokenizer.decode(tokens[-1 - longest :])
        return any(stop in tail for stop in stops)


@dataclass(slots=True)
class Drawing:
    """The state of one request while it is sampled."""

    request: SampleRequest
    ends: Ends
    tell: Callable[[tuple[int, ...]], None] | None = None
    tokens: list[int] = field(default_factory=list)
    sample: Sample | None = None
    uniforms: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self.uniforms = randomness.stream("sample", self.request.seed).random(self.request.max_tokens).tolist()

    def add(self, token: int) -> None:
        """Append a token, and check whether it ends the response."""
        self.tokens.append(token)
        self.sample = self.ends.sample(self.request, self.tokens)
        if self.tell is not None:
            self.tell(tuple(self.tokens))

    def finished(self) -> Sample:
        """The sample of a finished request."""
        assert self.sample is not None
        return self.sample


class SampledBatch:
    """One batch `[adapters * rows]` of drawings, grouped by adapter; an adapter with fewer rows is filled with None."""

    def __init__(
        self,
        model: PreTrainedModel,
        bank: Bank,
        drawings: dict[Adapter | None, list[Drawing]],
        prefixes: KeptPrefixes,
        cache: CacheKind,
    ) -> None:
        self.model, self.bank, self.prefixes = model, bank, prefixes
        self.packed, self.shares = cache != "transformers", cache == "shared"
        self.masks = Masks.of(model)
        self.names = list(drawings)
        self.width = max(len(group) for group in drawings.values())
        self.grid = [row for group in drawings.values() for row in (*group, *[None] * (self.width - len(group)))]

    def run(self, choose: Callable[[Tensor], None] | None = None) -> None:
        """Sample until every row is finished.

        Args:
            choose: adds a token to every row that is not finished, from the logits `[rows, vocabulary]`; by default
                it is drawn.
        """
        choose = choose or self._draw
        with torch.inference_mode(), self.bank.active(self.names):
            logits = self._prefill()
            while True:
                choose(logits)
                if not any(map(_live, self.grid)):
                    return
                self._drop_finished()
                logits = self._next()

    def _prefill(self) -> Tensor:
        """Run the prompts through the model, and return the logits `[rows, vocabulary]` of the last position.

        All prompts end in the same column: first the common prefix, then filler if a prompt is short, then its rest.
        """
        drawings = [row for row in self.grid if row is not None]
        prompts = [(row or drawings[0]).request.prompt for row in self.grid]
        shared = _common_prefix(prompts) if self.packed else 0
        end = max(len(prompt) for prompt in prompts)
        longest = end + max(drawing.request.max_tokens for drawing in drawings)
        tokens = np.zeros((len(prompts), end), dtype=np.int64)
        present = np.ones((len(prompts), longest), dtype=np.bool_)
        for i, prompt in enumerate(prompts):
            tail = end - (len(prompt) - shared)
            tokens[i, :shared], tokens[i, tail:] = prompt[:shared], prompt[shared:]
            present[i, shared:tail] = False
        device = self.model.device
        ids, self.present, self.end = torch.from_numpy(tokens).to(device), torch.from_numpy(present).to(device), end
        self.places = (self.present.cumsum(dim=1) - 1).clamp(min=0)  # the position of each column in its own sequence
        positions = self.places[:, :end]
        self.positions = positions[:, -1:]
        self.buffers: list[Buffer] = []
        if not self.packed:
            config = self.model.config
            layers_differ = getattr(config.get_text_config(), "layer_types", None) or reads_window(self.model)
            # For a field `sliding_window` that no layer reads, a cache made from the config would drop what they need.
            self.cache: Cache = DynamicCache(config=config if layers_differ or not _has_window(config) else None)
            return self._logits(ids, positions, self.present[:, :end].long())
        causal = torch.ones(end, end, dtype=torch.bool, device=device).tril()
        windows = self.masks.windows(self.model)
        if not shared:
            self._look_at([Buffer(longest) for _ in windows])
        else:
            prefix = self._prefix(prompts[0][:shared], causal[:shared, :shared])
            if self.shares:
                own = zip(prefix, windows, strict=True)
                self._look_at([Buffer(longest - shared, columns, len(prompts), window) for columns, window in own])
            else:
                self._look_at([Buffer(longest) for _ in windows])
                for buffer, columns in zip(self.buffers, prefix, strict=True):
                    if columns is not None:
                        buffer.update(*columns)
                self.cache.batch_repeat_interleave(self.width)
        seen = self.present[:, None, :end] & causal[shared:]
        # Filler attends to itself, so that no row of the attention matrix is empty.
        seen |= torch.eye(end, dtype=torch.bool, device=device)[shared:]
        rest = positions[:, shared:]
        return self._logits(ids[:, shared:], rest, self.masks.make(seen[:, None], rest, positions))

    def _look_at(self, buffers: list[Buffer]) -> None:
        self.buffers, self.cache = buffers, Cache(layers=[*buffers])

    def _prefix(self, tokens: tuple[int, ...], causal: Tensor) -> list[Columns | None]:
        """Each layer's keys and values of these tokens, a row for each adapter; None in a layer that has none."""
        parameters = [None if name is None else self.bank.adapters[name].parameters for name in self.names]
        columns = self.prefixes.get(tokens, parameters)
        if columns is None:
            self._look_at([Buffer(len(tokens)) for _ in self.masks.windows(self.model)])
            ids = torch.tensor([tokens] * len(self.names), device=self.model.device)
            positions = torch.arange(len(tokens), device=self.model.device).expand_as(ids)
            mask = causal.expand(len(ids), 1, -1, -1)
            self._logits(ids, positions, self.masks.make(mask, positions, positions))
            columns = [buffer.columns() for buffer in self.buffers]
            self.prefixes.put(tokens, parameters, columns)
        return columns

    def _next(self) -> Tensor:
        """Run the last token of each row through the model, and return the logits `[rows, vocabulary]`."""
        self.end += 1
        self.positions = self.positions + 1
        present = self.present[:, : self.end]
        tokens = torch.tensor([[row.tokens[-1] if row else 0] for row in self.grid], device=self.model.device)
        if not self.packed:
            return self._logits(tokens, self.positions, present.long())
        mask = self.masks.make(present[:, None, None], self.positions, self.places[:, : self.end])
        return self._logits(tokens, self.positions, mask)

    def _logits(self, ids: Tensor, positions: Tensor, mask: Any) -> Tensor:
        with prefix_attention(self.model, self.buffers):
            out = self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1,
            )
        return cast(Tensor, out.logits[:, -1].float())

    def _draw(self, logits: Tensor) -> None:
        """Draw the next token of each unfinished row from its own stream, and check whether it ends the row."""
        live = [(i, row) for i, row in enumerate(self.grid) if row is not None and row.sample is None]
        double = {"dtype": torch.float64, "device": logits.device}
        uniforms = torch.tensor([row.uniforms[len(row.tokens)] for _, row in live], **double)  # type: ignore[arg-type]
        temperatures = torch.tensor([row.request.temperature for _, row in live], **double)  # type: ignore[arg-type]
        rows = logits if len(live) == len(self.grid) else logits[[i for i, _ in live]]
        chosen = draw(rows, temperatures, uniforms).tolist()
        for (_, row), token in zip(live, chosen, strict=True):
            row.add(token)

    def _drop_finished(self) -> None:
        """Remove finished rows if that is worth the copy. All adapters keep the same number of rows."""
        groups = [range(start, start + self.width) for start in range(0, len(self.grid), self.width)]
        live = [[i for i in group if _live(self.grid[i])] for group in groups]
        width = max(len(group) for group in live)
        if width > COMPACTION_SHARE * self.width:
            return
        spare = [[None] * (width - len(rows)) for rows in live]
        keep = [i for rows, fill in zip(live, spare, strict=True) for i in (*rows, *fill)]
        self.grid, self.width = [None if i is None else self.grid[i] for i in keep], width
        index = torch.tensor([i or 0 for i in keep], device=self.model.device)  # None is filled with any row
        if self.packed:
            self.cache.batch_select_indices(index)
        else:  # recurrent states and those of convolutions too, which have no `batch_select_indices`
            self.cache.reorder_cache(cast(torch.LongTensor, index))
        self.present, self.positions, self.places = self.present[index], self.positions[index], self.places[index]


def draw(logits: Tensor, temperatures: Tensor, uniforms: Tensor) -> Tensor:
    """Inverse-transform sampling: the token at which each row's cumulative probability exceeds its uniform number.

    At temperature 0 it is the most probable token. A large vocabulary is divided into blocks of `BLOCK` tokens: first
    the block is chosen, then the token within it, so that only one block per row is converted to fp64.

    Args:
        logits: `[rows, vocabulary]`; those of a large vocabulary are overwritten.
        temperatures, uniforms: `[rows]` in fp64.

    Returns:
        Tokens `[rows]`.
    """
    warm = temperatures > 0
    coldest = None if warm.all() else logits.argmax(dim=-1)
    if coldest is not None and not warm.any():
        return coldest
    divisors = torch.where(warm, temperatures, 1.0)
    if logits.shape[-1] <= WHOLE:
        sampled = _passed((logits.double() / divisors[:, None]).softmax(dim=-1), uniforms)
    else:
        sampled = _draw_in_blocks(logits, divisors, uniforms)
    return sampled if coldest is None else torch.where(warm, sampled, coldest)


def _draw_in_blocks(logits: Tensor, temperatures: Tensor, uniforms: Tensor) -> Tensor:
    """`draw` for a large vocabulary, at temperatures above 0."""
    # In place, because allocating a tensor of this size costs as much as computing its values.
    scores = logits.sub_(logits.amax(dim=-1, keepdim=True)).div_(temperatures[:, None].to(logits.dtype)).exp_()
    rest = -logits.shape[-1] % BLOCK
    weights = (F.pad(scores, (0, rest)) if rest else scores).view(len(logits), -1, BLOCK)
    # The order of additions within a block does not depend on the rest of the batch.
    cumulative = weights.sum(dim=-1).double().cumsum(dim=-1)
    block = _passed_at(cumulative, uniforms)
    start = torch.where(block > 0, cumulative.gather(1, (block - 1).clamp(min=0)[:, None])[:, 0], 0.0)
    mass = cumulative.gather(1, block[:, None])[:, 0] - start
    within = (uniforms * cumulative[:, -1] - start) / mass
    rows = torch.arange(len(logits), device=logits.device)
    token = block * BLOCK + _passed(weights[rows, block].double(), within)
    return token.clamp(max=logits.shape[-1] - 1)


def _passed(weights: Tensor, uniforms: Tensor) -> Tensor:
    """The column at which each row's cumulative weight exceeds the fraction `uniforms [rows]` of its total."""
    return _passed_at(weights.cumsum(dim=-1), uniforms)


def _passed_at(cumulative: Tensor, uniforms: Tensor) -> Tensor:
    passed = torch.searchsorted(cumulative, (uniforms * cumulative[:, -1])[:, None], right=True)[:, 0]
    # A number just below 1 may be rounded up to the total: then the last column with any weight is taken.
    last = torch.searchsorted(cumulative, cumulative[:, -1:].contiguous())[:, 0]
    return torch.minimum(passed, last).clamp(max=cumulative.shape[-1] - 1)  # if a weight is nan, any column


def _has_window(config: PreTrainedConfig) -> bool:
    return getattr(config.get_text_config(), "sliding_window", None) is not None


def _live(row: Drawing | None) -> bool:
    return row is not None and row.sample is None


def _common_prefix(prompts: Sequence[tuple[int, ...]]) -> int:
    """The number of leading tokens that all prompts share, at most all but one token of the shortest."""
    first, last = min(prompts), max(prompts)
    length = min(len(prompt) for prompt in prompts) - 1
    return next((i for i in range(length) if first[i] != last[i]), length)
