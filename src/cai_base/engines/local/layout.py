"""Decides how a model's batches are laid out: packed, if packed and padded log-probabilities agree on this model.

The comparison takes two forward passes over sequences of the longest expected length, through the first layers that
have every kind of layer. Its outcome depends on the weights, the config, the length, the device and the code, so it is
cached under a hash of these.
"""

import hashlib
import json
from dataclasses import asdict
from functools import cache
from pathlib import Path

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from cai_base import randomness
from cai_base.cache import recall, remember
from cai_base.engines import Datum, EngineError
from cai_base.engines.local.depth import every_kind_of_layer
from cai_base.engines.local.forward import Layout, weighted_logprobs

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.15}
"""The largest mean difference between packed and padded log-probabilities, in nats, for which packing is valid."""
COMPARED = 16
"""The number of tokens at a sequence's end that are compared. Differences are largest at the end."""
HEAD = 8
"""The number of tokens on which the model's own head is compared with its output matrix."""
ERRORS = (ValueError, RuntimeError, TypeError, KeyError, AttributeError, IndexError)
"""What models raise that cannot be run so."""


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
        EngineError: the model is not causal.
    """
    if not pack:
        return compare_layouts(model, length, pack=False)
    facts = _facts(model, digest, length)
    record = recall("layouts", facts)
    try:
        if record is not None:
            return Layout(**record["layout"]), record["note"]
    except (KeyError, TypeError):  # of another form
        pass
    layout, note = compare_layouts(model, length, pack=True)
    remember("layouts", facts, {"layout": asdict(layout), "note": note})
    return layout, note


def _facts(model: PreTrainedModel, digest: str, length: int) -> object:
    """Everything that the comparison depends on."""
    device = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else "cpu"
    config = {key: value for key, value in model.config.to_dict().items() if key != "_name_or_path"}
    attention = model.config.get_text_config()._attn_implementation
    facts = (digest, json.dumps(config, sort_keys=True, default=str), length, str(model.dtype), device, attention)
    return facts, (torch.__version__, transformers.__version__, _code_digest())


@cache
def _code_digest() -> str:
    """A hash of this engine's code."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def compare_layouts(model: PreTrainedModel, length: int, *, pack: bool) -> tuple[Layout, str | None]:
    """Compare packed with padded log-probabilities on this model, on sequences of `length` tokens, and choose.

    A sequence is laid out alone, and packed behind another one that shares all but its end. If a model depends on where
    a token is in the row (linear attention, convolutions, windows that its config does not mention), its
    log-probabilities differ, and the model is run padded.

    Arguments, result and errors are those of `choose_layout`.
    """
    length = max(4, length)
    config = model.config.get_text_config()
    body = sum(p.numel() for n, p in model.base_model.named_parameters() if p.dim() == 2 and "embed" not in n)
    attention_cost = 2.0 * config.num_hidden_layers * config.hidden_size / max(body, 1)
    tokens = randomness.stream("layout").integers(0, config.vocab_size, size=(2, length))
    # A longer end would make the packed row longer, and the comparison no stricter.
    shared = length - max(length // 8, min(length // 2, 2 * COMPARED))
    tokens[1, :shared] = tokens[0, :shared]
    first, second = sorted(map(tuple, tokens.tolist()))  # the order of a packed row
    _check_causal(model, first[: 2 * COMPARED])
    own_head = _has_own_head(model, first[: 2 * COMPARED])
    if not pack:
        return Layout(False, own_head, attention_cost), None
    try:
        with every_kind_of_layer(model):
            packs = _packs(model, own_head, first, second)
    except ERRORS:  # a model that cannot do without some of its layers
        packs = _packs(model, own_head, first, second)
    if packs:
        return Layout(True, own_head, attention_cost), None
    note = f"Packing is not valid for this model at {length} tokens (packed and padded differ): it runs padded"
    return Layout(False, own_head, attention_cost), note


def _packs(model: PreTrainedModel, own_head: bool, first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    """Whether the end of `second` has, packed behind `first`, the log-probabilities that it has in a row of its own."""
    # Logits are computed only for the tokens that are compared.
    compared = _datum(second, COMPARED)
    padded = _logprobs(model, Layout(False, own_head, 0.0), [compared])
    try:
        packed = _logprobs(model, Layout(True, own_head, 0.0), [_datum(first, 0), compared])[1:]
    except ERRORS:  # some models accept no ready-made mask
        return False
    return not _differ(packed, padded, model.dtype)


def _check_causal(model: PreTrainedModel, tokens: tuple[int, ...]) -> None:
    """Raises EngineError if changing the second half of `tokens` changes the log-probabilities of the first half."""
    half = len(tokens) // 2
    changed = (*tokens[:half], *reversed(tokens[half:]))
    weights = (0.0, *[1.0] * (half - 1), *[0.0] * (len(tokens) - half))
    shared = _logprobs(model, Layout(False, True, 0.0), [Datum(one, weights) for one in (tokens, changed)])
    if _differ(shared[:1], shared[1:], model.dtype):
        reason = f"{type(model).__name__} is not causal (a token's probability depends on what follows it)"
        raise EngineError("model", model.name_or_path, reason, "give a causal language model")


def _has_own_head(model: PreTrainedModel, tokens: tuple[int, ...]) -> bool:
    """Whether the model's head does more than multiply by its output matrix, tested on a few tokens."""
    start = [_datum(tokens[: HEAD + 1], HEAD)]
    own, bare = (_logprobs(model, Layout(False, own_head, 0.0), start) for own_head in (True, False))
    return _differ(own, bare, model.dtype)


def _datum(tokens: tuple[int, ...], last: int) -> Datum:
    """A datum with weight 1 on the last `last` tokens, except the first token of the sequence."""
    weighted = min(last, len(tokens) - 1)
    return Datum(tokens, (*[0.0] * (len(tokens) - weighted), *[1.0] * weighted))


def _logprobs(model: PreTrainedModel, layout: Layout, sequences: list[Datum]) -> Tensor:
    """The log-probabilities `[sequences, weighted tokens]`, computed in this layout."""
    with torch.inference_mode():
        return weighted_logprobs(model, layout, [sequences])[0]


def _differ(one: Tensor, other: Tensor, dtype: torch.dtype) -> bool:
    """Whether, for any sequence, the last `COMPARED` log-probabilities differ on average by more than rounding."""
    return not bool(((one - other)[..., -COMPARED:].abs().mean(dim=-1) <= TOLERANCE[dtype]).all())
