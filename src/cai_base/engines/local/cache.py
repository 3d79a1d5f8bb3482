"""Keys and values of a batch that is being drawn, and attention to a prefix that its rows share.

The few-shot turns are most of a prompt, and the same in every row. Their keys and values are kept once an adapter, not
once a row, and from one batch to the next. In a decoding step all rows of an adapter look at them in one matrix
product, what each row has of its own is looked at beside it, and the two are joined by their shares of the softmax. Up
to rounding that is the attention of a row alone, for a fraction of the memory that is read.
"""

import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import is_
from typing import Any, Literal
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "cai_base_shared_prefix"
"""What transformers calls this attention."""

Columns = tuple[Tensor, Tensor]
"""Keys and values, each `[rows, heads, columns, features]`."""
CacheKind = Literal["shared", "rows", "transformers"]
"""Where keys and values are kept while responses are drawn: those of a shared prefix once an adapter, or all of them
in every row, or in transformers' cache, where rows are padded and have the model's own masks."""


class Buffer(DynamicLayer):  # type: ignore[no-untyped-call]
    """A layer's keys and values in a buffer of fixed length, so that a step writes one column and copies nothing.

    Args:
        length: columns, at most.
        prefix: what stands before the columns of every row, a row for each adapter: the first adapter's rows come
            first, and all adapters have as many. None if nothing does.
        rows: how many there are; with a prefix only.
        window: the layer's sliding window, if it has one.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, length: int, prefix: Columns | None = None, rows: int = 0, window: int | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.length, self.prefix, self.window, self.used = length, prefix, window, 0
        if prefix is not None:
            self.keys, self.values = (self._empty(part, rows) for part in prefix)
            self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Columns:
        """Add columns `[rows, heads, new, features]`; all columns so far, without the prefix."""
        if not self.is_initialized:
            self.keys, self.values = (self._empty(part, len(part)) for part in (key_states, value_states))
            self.is_initialized = True
        start, self.used = self.used, self.used + key_states.shape[2]
        self.keys[:, :, start : self.used] = key_states
        self.values[:, :, start : self.used] = value_states
        return self.keys[:, :, : self.used], self.values[:, :, : self.used]

    def columns(self) -> Columns | None:
        """The columns in use, without the prefix; None in a layer that takes them from another one (Gemma 3n)."""
        return (self.keys[:, :, : self.used], self.values[:, :, : self.used]) if self.is_initialized else None

    def get_seq_length(self) -> int:
        """Columns in use, the prefix included."""
        return self.used + (0 if self.prefix is None else self.prefix[0].shape[2])

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row `repeats` times."""
        if not self.is_initialized:
            return
        self.batch_select_indices(torch.arange(len(self.keys), device=self.keys.device).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        """The rows `indices` in place of all. Only the columns in use are copied."""
        if not self.is_initialized:
            return
        for name in ("keys", "values"):
            old: Tensor = getattr(self, name)[:, :, : self.used]
            new = self._empty(old, len(indices))
            torch.index_select(old, 0, indices, out=new[:, :, : self.used])
            setattr(self, name, new)

    def _empty(self, like: Tensor, rows: int) -> Tensor:
        return like.new_empty(rows, like.shape[1], self.length, like.shape[3])


def token_bytes(config: PreTrainedConfig, itemsize: int) -> int:
    """The bytes of one token's keys and values in all layers.

    Layers may differ in the number and the width of their heads (Gemma 4), and some take those of another layer.
    """
    layers = getattr(config, "per_layer_config", None) or [config] * config.num_hidden_layers
    modes = getattr(config, "kv_sharing_modes", None) or [None] * len(layers)
    own = [layer for layer, mode in zip(layers, modes, strict=True) if mode != "reuse"]
    return 2 * itemsize * sum(_heads(layer) * _features(layer) for layer in own)


def _heads(config: PreTrainedConfig) -> int:
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def _features(config: PreTrainedConfig) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


@dataclass(frozen=True, slots=True)
class _Entry:
    """The columns of every layer, and which parameters of the adapters they were computed under.

    Attributes:
        parameters: weak references, so that an adapter that is removed leaves the memory; None is the base model.
        versions: how often each was changed in place.
    """

    columns: list[Columns | None]
    parameters: tuple[ReferenceType[Tensor] | None, ...]
    versions: tuple[int, ...]

    @classmethod
    def of(cls, columns: list[Columns | None], parameters: Sequence[Tensor | None]) -> "_Entry":
        return cls(columns, tuple(None if one is None else ref(one) for one in parameters), _versions(parameters))

    def is_of(self, parameters: Sequence[Tensor | None]) -> bool:
        """Whether these are the same tensors with the same values."""
        there = [None if one is None else one() for one in self.parameters]
        are_same = len(there) == len(parameters) and all(map(is_, there, parameters))
        return are_same and self.can_be_used() and self.versions == _versions(parameters)

    def can_be_used(self) -> bool:
        """Whether all of the adapters are still there."""
        return all(one is None or one() is not None for one in self.parameters)


class KeptPrefixes:
    """Prefixes of batches, kept from one batch to the next: the critiques and revisions of a run all begin alike.

    A prefix is kept for the very tokens and adapters, in their order, that it was computed for. So a batch gets the
    bits that it would compute itself, and no sample depends on what was sampled before.

    Args:
        capacity: the most bytes; those that were used longest ago go first.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[tuple[int, ...], _Entry] = OrderedDict()

    def get(self, tokens: tuple[int, ...], parameters: Sequence[Tensor | None]) -> list[Columns | None] | None:
        """The columns of every layer for these tokens under adapters with these parameters, if they are kept."""
        entry = self._entries.get(tokens)
        if entry is None or not entry.is_of(parameters):
            return None
        self._entries.move_to_end(tokens)
        return entry.columns

    def put(self, tokens: tuple[int, ...], parameters: Sequence[Tensor | None], columns: list[Columns | None]) -> None:
        """Keep them, in the place of those of earlier parameters and of adapters that are gone."""
        for key in [key for key, entry in self._entries.items() if key == tokens or not entry.can_be_used()]:
            del self._entries[key]
        self._entries[tokens] = _Entry.of(columns, parameters)
        while self._bytes() > self._capacity:
            self._entries.popitem(last=False)

    def _bytes(self) -> int:
        return sum(part.nbytes for one in self._entries.values() for pair in one.columns for part in pair or ())


def _versions(parameters: Sequence[Tensor | None]) -> tuple[int, ...]:
    """How often each tensor was changed in place."""
    return tuple(0 if one is None else one._version for one in parameters)


class _Prefixes:
    """The layers whose prefixes are looked at now. Attention is given a layer's keys alone: these tell which it is."""

    def __init__(self) -> None:
        self.layers: list[Buffer] = []

    def of(self, keys: Tensor) -> tuple[Columns, int | None]:
        """The prefix and the window of the layer that these keys are of; raises ValueError if they are of none."""
        address = keys.untyped_storage().data_ptr()
        for layer in self.layers:
            if layer.prefix is not None and layer.keys.untyped_storage().data_ptr() == address:
                return layer.prefix, layer.window
        raise ValueError("the model's attention does not take the keys of its cache as they are")


_prefixes = _Prefixes()


@contextmanager
def prefix_attention(model: PreTrainedModel, layers: list[Buffer]) -> Iterator[None]:
    """Within it the model's attention looks at the prefixes of these layers, too; without any it is the model's own."""
    if not any(layer.prefix for layer in layers):
        yield
        return
    config = model.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation, _prefixes.layers = NAME, layers
    try:
        yield
    finally:
        config._attn_implementation, _prefixes.layers = before, []


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """Attention `[rows, queries, heads, features]` to the prefix and to a row's own columns.

    Args:
        module: the layer's attention.
        query: `[rows, heads, queries, features]`.
        key, value: a row's own columns.
        attention_mask: `[rows, 1, queries, prefix and own columns]`, true where a query may look, or added to the
            scores and 0 there. Without a window, one query may look at the whole prefix.
        scaling: of the scores.
        softcap: the bound of the scores, approached by a tanh, if the model has one (Gemma 2).
        s_aux: a score for each head that takes its share of the softmax and has no value, if the model has them
            (gpt-oss, where they are called sinks).
        more: what else transformers gives to its own.
    """
    (keys, values), window = _prefixes.of(key)
    rows, heads, queries, features = query.shape
    each = rows // len(keys)
    if queries > 1:  # a prompt's rest, once: as if the prefix stood in every row
        if window is not None:  # the first token after the prefix looks at one fewer
            out_of_sight = max(0, keys.shape[2] - (window - 1))
            keys, values = keys[:, :, out_of_sight:], values[:, :, out_of_sight:]
            attention_mask = attention_mask[..., out_of_sight:]
        whole = [torch.cat([p.repeat_interleave(each, 0), own], 2) for p, own in ((keys, key), (values, value))]
        arguments = {"scaling": scaling, "softcap": softcap, "s_aux": s_aux, **more}
        arguments = {name: value for name, value in arguments.items() if value is not None}
        if attention_mask.is_floating_point():  # the model has attention of its own, in the file of its layers
            function = vars(sys.modules[type(module).__module__])["eager_attention_forward"]
        else:
            function = ALL_ATTENTION_FUNCTIONS["sdpa"]
        output, _ = function(module, query, *whole, attention_mask, **arguments)
        return output, None
    if attention_mask.is_floating_point():
        attention_mask = attention_mask == 0
    adapters, groups, shared, _ = keys.shape
    if window is not None:  # what stands further back is out of every row's sight
        keys, values = keys[:, :, -window:], values[:, :, -window:]
    scaled = query * (features**-0.5 if scaling is None else scaling)
    # Rows of one adapter, and heads that have their keys in common, are rows of one matrix.
    by_adapter = scaled.view(adapters, each, groups, -1, features).transpose(1, 2)
    to_prefix = _capped(by_adapter.reshape(adapters, groups, -1, features) @ keys.transpose(2, 3), softcap).float()
    if window is not None:
        seen = attention_mask[..., shared - keys.shape[2] : shared].view(adapters, 1, each, 1, -1)
        # Not -inf: a row that is past the window would have no softmax. Its share of the prefix is 0 all the same.
        lowest = torch.finfo(to_prefix.dtype).min
        by_query = to_prefix.view(adapters, groups, each, -1, keys.shape[2])
        to_prefix = by_query.masked_fill(~seen, lowest).view_as(to_prefix)
    to_own = _capped(scaled.view(rows, groups, -1, features) @ key.transpose(2, 3), softcap)
    to_own = to_own.float().masked_fill(~attention_mask[..., shared:], float("-inf"))
    of_prefix, prefix_mass = _weighted(to_prefix, values)
    of_own, own_mass = _weighted(to_own, value)

    def by_row(part: Tensor) -> Tensor:
        split = part.view(adapters, groups, each, -1, part.shape[-1])
        return split.transpose(1, 2).reshape(rows, groups, -1, part.shape[-1])

    share = torch.sigmoid(by_row(prefix_mass) - own_mass).to(of_own.dtype)
    out = of_own + (by_row(of_prefix) - of_own) * share
    if s_aux is not None:
        mass = torch.logaddexp(by_row(prefix_mass), own_mass)
        out = out * torch.sigmoid(mass - s_aux.float().view(1, groups, -1, 1)).to(out.dtype)
    return out.view(rows, 1, heads, features), None


def _capped(scores: Tensor, softcap: float | None) -> Tensor:
    return scores if softcap is None else softcap * torch.tanh(scores / softcap)


def _weighted(scores: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The values' mean under the softmax of `scores [.., queries, columns]`, and the logarithm of its denominator."""
    return scores.softmax(dim=-1).to(values.dtype) @ values, scores.logsumexp(dim=-1, keepdim=True)


ALL_ATTENTION_FUNCTIONS.register(NAME, attention)
