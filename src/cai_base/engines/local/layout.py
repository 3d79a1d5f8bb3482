"""Decides how a model's batches are laid out: packed, if packed and padded log-probabilities agree on this model; and
where the keys and values of responses are kept (`cache_check`).

Layers that are not attention are never packed. For other models the comparison takes two forward passes over sequences
of the longest expected length, in float32, through the first layer of each kind. Its outcome depends
on the weights, the config, the length, the device and the code, so it is cached under a hash of these.
"""

import hashlib
import json
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from cai_base import randomness
from cai_base.cache import recall, remember
from cai_base.engines import Datum, EngineError
from cai_base.engines.local.cache import CacheKind
from cai_base.engines.local.cache_check import choose_cache
from cai_base.engines.local.depth import every_kind_of_layer, in_float32, one_of_each_kind
from cai_base.engines.local.forward import Layout, own_logits, weighted_logprobs
from cai_base.engines.local.masks import FULL, SLIDING
from cai_base.engines.tokenizer import one_line

TOLERANCE = {torch.float32: 5e-4, torch.bfloat16: 0.1}
"""The largest difference of a token's packed and padded log-probabilities, in nats, for which packing is valid.

Small models whose packing is valid differ by up to 1e-6 in float32 and 0.015 in bfloat16. The second is for models that
cannot be cast to float32: quantized ones, or too large for the memory then."""
COMPARED = 8
"""The number of tokens that are compared right behind the branch of two sequences, where convolutions and recurrent
states are wrong, and as many at the end, where windows are."""
END = 32
"""The number of tokens behind the branch, if a sequence is twice as long."""
FEW = 4
"""The number of tokens that are compared to test causality."""
LOUD = 100.0
"""The largest logit of hidden states that are scaled up so that a soft cap on the logits shows."""
SAME = 1e-3
"""The largest difference of logits that are the same, as a fraction of the largest logit."""
OTHER_MODEL = "give a causal language model of another architecture"
NO_CACHE = "its responses cannot be drawn token by token, not even with transformers' own cache of keys and values"
SLOWER: dict[CacheKind, str] = {
    "rows": "Responses are drawn with the shared prefix of their prompts in every row: kept once, it is not valid",
    "transformers": "Responses are drawn padded, with transformers' own cache: that of this program is not valid",
}
"""What is said of a model that is packed, and whose responses are not drawn behind one copy of their shared prefix."""
ERRORS = (ValueError, RuntimeError, TypeError, KeyError, AttributeError, IndexError)
"""What models raise that cannot be run so."""


class NoCacheError(EngineError):
    """No cache of keys and values works with a model."""


def choose_layout(model: PreTrainedModel, digest: str, length: int, *, pack: bool) -> tuple[Layout, str | None]:
    """The layout for `model`, from the cache or by `compare_layouts`.

    Args:
        model: frozen, without adapters.
        digest: hash of its weights.
        length: of the longest expected sequence, in tokens.
        pack: False chooses the padded layout without a comparison.

    Returns:
        The layout, and a sentence for the reader of the results if it is padded although `pack` is true.

    Raises:
        EngineError: the model is not causal, its logits are not those of a head, or no cache works with it.
    """
    facts = _facts(model, digest, length, pack)
    record = recall("layouts", facts)
    try:
        if record is not None:
            return Layout(**record["layout"]), record["note"]
    except (KeyError, TypeError):  # of another form
        pass
    layout, note = compare_layouts(model, length, pack=pack)
    remember("layouts", facts, {"layout": asdict(layout), "note": note})
    return layout, note


def _facts(model: PreTrainedModel, digest: str, length: int, pack: bool) -> object:
    """Everything that the comparison depends on."""
    device = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else "cpu"
    config = {key: value for key, value in model.config.to_dict().items() if key != "_name_or_path"}
    attention = model.config.get_text_config()._attn_implementation
    facts = (digest, json.dumps(config, sort_keys=True, default=str), length, pack, str(model.dtype), device, attention)
    return facts, (torch.__version__, transformers.__version__, _code_digest())


@cache
def _code_digest() -> str:
    """A hash of this engine's code."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def compare_layouts(model: PreTrainedModel, length: int, *, pack: bool) -> tuple[Layout, str | None]:
    """Choose by the model's types of layer, and by its packed and padded log-probabilities of `length` tokens.

    A sequence is laid out alone, and packed behind another one that shares all but its end. If a model depends on where
    a token is in the row (recurrent states, convolutions, windows that its config does not mention), its
    log-probabilities differ, and the model is run padded.

    Arguments, result and errors are those of `choose_layout`.
    """
    config = model.config.get_text_config()
    body = sum(p.numel() for n, p in model.base_model.named_parameters() if p.dim() == 2 and "embed" not in n)
    attention_cost = 2.0 * config.num_hidden_layers * config.hidden_size / max(body, 1)
    length = max(4, length)
    try:
        with every_kind_of_layer(model), in_float32(model):
            layout, note = _examine(model, length, pack=pack)
    except (*ERRORS, NoCacheError):  # a model that cannot do without some of its layers, or in another precision
        layout, note = _examine(model, length, pack=pack)
    return replace(layout, attention_cost=attention_cost), note


def _examine(model: PreTrainedModel, length: int, *, pack: bool) -> tuple[Layout, str | None]:
    """The layout, but for its cost of attention, and a sentence about what is not as fast as it could be.

    Raises:
        EngineError: as `choose_layout`.
    """
    own_head, reason = _find_head_and_difference(model, length, pack=pack)
    packed = pack and reason is None
    cache, failures = choose_cache(model, packed=packed)
    if cache is None:
        raise NoCacheError("model", model.name_or_path, f"{NO_CACHE} ({failures[-1]})", OTHER_MODEL)
    note = None
    if reason is not None:
        note = f"Packing is not valid for this model ({reason}): it runs padded"
    elif failures:
        note = f"{SLOWER[cache]} ({failures[-1]})"
    return Layout(packed, own_head, 0.0, cache), note


def _find_head_and_difference(model: PreTrainedModel, length: int, *, pack: bool) -> tuple[bool, str | None]:
    """Whether the model has a head of its own, and why packing is not valid for it; None if it is, or not `pack`."""
    config = model.config.get_text_config()
    tokens = randomness.stream("layout").integers(0, config.vocab_size, size=(2, length))
    # A longer end would make the packed row longer, and the comparison no stricter.
    shared = length - min(length // 2, END)
    tokens[1, :shared] = tokens[0, :shared]
    tokens[1, shared] = (tokens[0, shared] + 1) % config.vocab_size
    first, second = sorted(map(tuple, tokens.tolist()))  # the order of a packed row
    own_head = _has_own_head(model, first[0])
    _check_causal(model, own_head, first[: 4 * FEW])
    if not pack:
        return own_head, None
    others = sorted({*(getattr(config, "layer_types", None) or ())} - {FULL, SLIDING})
    if others:
        attention = "its layers of the type " + ", ".join(others) + " are not full or sliding attention"
        return own_head, f"{attention}, and would take in other sequences of a packed row"
    with one_of_each_kind(model):
        return own_head, _difference(model, own_head, first, second, shared)


def _difference(
    model: PreTrainedModel, own_head: bool, first: tuple[int, ...], second: tuple[int, ...], shared: int
) -> str | None:
    """Why the end of `second` has not, packed behind `first`, the log-probabilities that it has in a row of its own.

    They share the first `shared` tokens. None if it has.
    """
    # Logits are computed only for the tokens that are compared. The first behind the branch is predicted before it.
    behind = range(shared + 1, shared + 1 + COMPARED)
    last = range(max(1, len(second) - COMPARED), len(second))
    compared = Datum(second, tuple(float(i in behind or i in last) for i in range(len(second))))
    padded = _logprobs(model, Layout(False, own_head, 0.0), [compared])
    try:
        packed = _logprobs(model, Layout(True, own_head, 0.0), [Datum(first, (0.0,) * len(first)), compared])[1:]
    except ERRORS as error:
        return f"it takes no ready-made attention mask: {one_line(error)}"
    largest = (packed - padded).abs().max().item()
    if largest <= TOLERANCE[model.dtype]:
        return None
    return f"a token's log-probabilities packed and padded differ by {largest:.2g} nats at {len(second)} tokens"


def _check_causal(model: PreTrainedModel, own_head: bool, tokens: tuple[int, ...]) -> None:
    """Raises EngineError if changing the second half of `tokens` changes log-probabilities at the end of the first."""
    half = len(tokens) // 2
    changed = (*tokens[:half], *reversed(tokens[half:]))
    weights = tuple(float(max(1, half - FEW) <= i < half) for i in range(len(tokens)))
    one, other = _logprobs(model, Layout(False, own_head, 0.0), [Datum(own, weights) for own in (tokens, changed)])
    if not (one - other).abs().max() <= TOLERANCE[model.dtype]:
        reason = f"{type(model).__name__} is not causal (a token's probability depends on what follows it)"
        raise EngineError("model", model.name_or_path, reason, "give a causal language model")


def _has_own_head(model: PreTrainedModel, token: int) -> bool:
    """Whether the model's head does more than multiply by its output matrix, as scales and soft caps do.

    The logits of one token tell: a large vocabulary takes longer to multiply by than a few layers.

    Raises:
        EngineError: it has no part without its head, or its logits are not made of that part's hidden states alone.
    """
    name, remedy = type(model).__name__, OTHER_MODEL
    if model.base_model is model:
        reason = f"transformers' {name} has no base_model apart from its head, whose states a head would be applied to"
        raise EngineError("model", model.name_or_path, reason, remedy)
    reason = f"{name} does more than apply a head to the states of its base_model"
    matrix = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    ids = torch.tensor([[token]], device=model.device)
    with torch.inference_mode():
        hidden = model.base_model(input_ids=ids, use_cache=False)[0]
        logits = model(input_ids=ids, use_cache=False).logits
        try:
            alone = _same(own_logits(model, hidden[0]), logits[0])
        except ERRORS:  # a forward pass of another form
            alone = False
        if alone and matrix is not None:
            loud = hidden * (LOUD / matrix(hidden).abs().max())
            return not _same(own_logits(model, loud[0]), matrix(loud)[0])
        if not alone and (matrix is None or not _same(matrix(hidden)[0], logits[0])):
            raise EngineError("model", model.name_or_path, reason, remedy)
    return alone


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether these logits are the same, up to rounding."""
    return bool((one - other).abs().max() <= SAME * other.abs().max())


def _logprobs(model: PreTrainedModel, layout: Layout, sequences: list[Datum]) -> Tensor:
    """The log-probabilities `[sequences, weighted tokens]`, computed in this layout."""
    with torch.inference_mode():
        return weighted_logprobs(model, layout, [sequences])[0]
