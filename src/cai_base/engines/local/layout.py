"""Deciding how a model's batches are laid out, by a comparison on the model at hand that is remembered.

The comparison takes two passes over sequences of the longest length to come. Its outcome depends on the weights, the
config, the length, the device and the code, so it is stored under a hash of these in the user's cache folder.
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
from cai_base.engines.local.forward import Layout, weighted_logprobs

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.15}
"""By how much log-probabilities may differ, packed and padded, before packing counts as invalid."""
COMPARED = 16
"""Tokens at a sequence's end whose mean difference is compared: there, what a model leaves out or adds is largest."""


def choose_layout(model: PreTrainedModel, digest: str, length: int, *, pack: bool) -> tuple[Layout, str | None]:
    """The layout for `model`, from the cache or by `compare_layouts`.

    Args:
        model: frozen, without adapters.
        digest: of its weights.
        length: of the longest sequence to come.
        pack: False runs padded whatever comes out.

    Returns:
        The layout, and a sentence for the reader where it is padded although `pack` is true.

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
    """All that the comparison depends on."""
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

    A sequence is laid out alone, and in a row behind another one with which it shares all but its end. Where a model
    looks at where tokens stand in a row (linear attention, convolutions, windows that its config does not tell), its
    log-probabilities differ, and the model runs padded.

    Arguments, result and errors are those of `choose_layout`.
    """
    length = max(4, length)
    config = model.config.get_text_config()
    body = sum(p.numel() for n, p in model.base_model.named_parameters() if p.dim() == 2 and "embed" not in n)
    attention_cost = 2.0 * config.num_hidden_layers * config.hidden_size / max(body, 1)
    tokens = randomness.stream("layout").integers(0, config.vocab_size, size=(2, length))
    shared = length - max(length // 8, min(length // 2, 2 * COMPARED))  # a longer end makes a longer row, no stricter
    tokens[1, :shared] = tokens[0, :shared]
    first, second = sorted(map(tuple, tokens.tolist()))  # as they stand in a packed row
    _check_causal(model, first[: 2 * COMPARED])
    own_head = _has_own_head(model, first[: 2 * COMPARED])
    if not pack:
        return Layout(False, own_head, attention_cost), None
    # Logits are computed for the tokens that are compared alone.
    compared = _datum(second, COMPARED)
    padded = _logprobs(model, Layout(False, own_head, 0.0), [compared])
    try:
        packed = _logprobs(model, Layout(True, own_head, 0.0), [_datum(first, 0), compared])[1:]
        packs = not _differ(packed, padded, model.dtype)
    except (ValueError, RuntimeError, TypeError, KeyError, AttributeError):  # some models refuse a ready-made mask
        packs = False
    if packs:
        return Layout(True, own_head, attention_cost), None
    note = f"Packing is not valid for this model at {length} tokens (packed and padded differ): it runs padded"
    return Layout(False, own_head, attention_cost), note


def _check_causal(model: PreTrainedModel, tokens: tuple[int, ...]) -> None:
    """Raises EngineError if the first half of `tokens` has other log-probabilities before another second half."""
    half = len(tokens) // 2
    changed = (*tokens[:half], *reversed(tokens[half:]))
    pair = [_datum(one, len(tokens)) for one in (tokens, changed)]
    shared = _logprobs(model, Layout(False, True, 0.0), pair)[:, : half - 1]
    if _differ(shared[:1], shared[1:], model.dtype):
        reason = f"{type(model).__name__} is not causal (a token's probability depends on what follows it)"
        raise EngineError("model", model.name_or_path, reason, "give a causal language model")


def _has_own_head(model: PreTrainedModel, tokens: tuple[int, ...]) -> bool:
    """Whether the model's head does more than its output matrix, which a few tokens show."""
    start = [_datum(tokens, len(tokens))]
    own, bare = (_logprobs(model, Layout(False, own_head, 0.0), start) for own_head in (True, False))
    return _differ(own, bare, model.dtype)


def _datum(tokens: tuple[int, ...], last: int) -> Datum:
    """`tokens` with weight 1 on at most the `last` of them; the first has nothing before it."""
    weighted = min(last, len(tokens) - 1)
    return Datum(tokens, (*[0.0] * (len(tokens) - weighted), *[1.0] * weighted))


def _logprobs(model: PreTrainedModel, layout: Layout, sequences: list[Datum]) -> Tensor:
    """The log-probabilities `[sequences, weighted tokens]` in this layout."""
    with torch.inference_mode():
        return weighted_logprobs(model, layout, [sequences])[0]


def _differ(one: Tensor, other: Tensor, dtype: torch.dtype) -> bool:
    """Whether the last `COMPARED` log-probabilities of any sequence differ by more than rounding, in the mean."""
    return not bool(((one - other)[..., -COMPARED:].abs().mean(dim=-1) <= TOLERANCE[dtype]).all())
