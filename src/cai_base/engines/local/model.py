"""Loading a Hugging Face causal language model, frozen."""

import hashlib
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from cai_base.engines import EngineError
from cai_base.engines.files import ADAPTER_CONFIG, MODEL_CONFIG
from cai_base.engines.local import config_fields, config_values, hub, sizes
from cai_base.engines.tokenizer import VOCABULARY_REMEDY, HubTokenizer, one_line, unreachable
from cai_base.reading import quote


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A frozen model on its device, its tokenizer, its context length in tokens, and a hash of its weights.

    Attributes:
        notes: what a user should know about its files.
    """

    model: PreTrainedModel
    tokenizer: HubTokenizer
    context_length: int
    digest: str
    notes: tuple[str, ...] = ()


def check_folder(name: str) -> None:
    """Check a model's name without loading it: a folder must hold a model, anything else must have a hub id's form.

    Raises:
        EngineError: the folder does not exist or holds no model, or the name is neither a folder nor a hub id.
    """
    folder = Path(name)
    if folder.exists() or name.startswith((".", "/", "~")):
        if not folder.exists():
            raise EngineError("model", name, "there is no such folder", FOLDER_REMEDY)
        if not (folder / MODEL_CONFIG).is_file():
            raise EngineError("model", name, f"no model there (no {MODEL_CONFIG})", MODEL_REMEDY)
        if (folder / ADAPTER_CONFIG).is_file():
            raise EngineError("model", name, ADAPTER_BESIDE, ADAPTER_REMEDY)
        if not any(folder.glob("*.safetensors")):
            raise EngineError("model", name, "no *.safetensors there (pickled weights are not read)", MODEL_REMEDY)
    elif not _HUB_ID.fullmatch(name):  # a request to the hub, with its retries, would take half a minute
        reason = "there is no such folder, and a hub id has the form owner/name"
        raise EngineError("model", name, reason, MODEL_REMEDY)


def load(
    name: str, device: torch.device, dtype: torch.dtype, *, tokenizer_of: str | None = None, thinking: bool = True
) -> LoadedModel:
    """Load a folder or a hub id. Only safetensors are read, and no code from the model's files is run.

    Args:
        name: the folder or hub id.
        device: the device to load to.
        dtype: of the weights.
        tokenizer_of: folder or hub id of the tokenizer to use, such as an adapter's; `name` by default.
        thinking: see `HubTokenizer`.

    Raises:
        EngineError: there is no such model, transformers knows no causal language model of its architecture, or the
            other tokenizer has tokens that the model has no embeddings for.
    """
    check_folder(name)
    if Path(name).is_dir():
        config_values.check_folder(Path(name))
        sizes.check_folder(Path(name))
    else:
        hub.check_download(name)
    try:
        model, tokenizer, report = _read(name, tokenizer_of or name, dtype)
    except Exception as error:  # transformers raises errors of nearly every type for a faulty folder
        reason = unreachable(error) or f"cannot be loaded as a causal language model ({one_line(error)})"
        raise EngineError("model", name, reason, MODEL_REMEDY) from error
    config_values.check(name, MODEL_CONFIG, PreTrainedConfig.get_config_dict(name)[0])
    if getattr(model, "_hf_peft_config_loaded", False):  # of the hub; a folder was checked before
        raise EngineError("model", name, ADAPTER_BESIDE, ADAPTER_REMEDY)
    absent = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    if absent:
        reason = f"its files lack weights that its config asks for, such as {absent[0]}"
        raise EngineError("model", name, reason, MODEL_REMEDY)
    notes = _refuse_ignored(name, model, report["unexpected_keys"])
    _refuse_not_finite(name, model)
    notes += config_fields.check(name, model) + _untied_note(model) + _precision_note(name, dtype)
    if not any(isinstance(module, nn.Linear) for module in text_decoder(model).modules()):
        reason = f"{type(model).__name__} has no linear layers that LoRA can adapt"
        raise EngineError("model", name, reason, "give a model with linear layers")
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    if tokenizer_of is not None and len(tokenizer) > vocabulary:
        _check_tokens(name, tokenizer_of, len(tokenizer), vocabulary)
    model.requires_grad_(False).eval().to(device)
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    eos = frozenset(_whole(name, "eos_token_id", end) for end in [*ends, tokenizer.eos_token_id] if end is not None)
    if eos and min(eos) >= vocabulary:
        reason = f"its end token {min(eos)} is not among its {vocabulary:,} tokens, so no answer would end"
        raise EngineError("model", name, reason, "correct eos_token_id, or give the model with its own tokenizer")
    length, note = _context_length(name, model.config.get_text_config(), tokenizer)
    wrapped = HubTokenizer(tokenizer, eos, vocabulary=vocabulary, thinking=thinking)
    return LoadedModel(model, wrapped, length, weights_digest(model), notes + note)


def _refuse_ignored(name: str, model: PreTrainedModel, unexpected: Iterable[str]) -> tuple[str, ...]:
    """Raises EngineError if something in the files is not in the model, and so it is not the model that they hold.

    The encoder of a multimodal model is left out on purpose, and a buffer that an older version stored follows from the
    config.

    Returns:
        A note for each kind of weights that is left out.
    """
    weights = sorted(key for key in unexpected if not _BUFFER.search(key))
    kinds = [(key, _left_out(key)) for key in weights]
    lost = [key for key, kind in kinds if kind is None]
    if lost:
        what = "layers" if _LAYER.search(lost[0]) else "they"
        reason = f"its files have weights that its config leaves out, such as {lost[0]}: {what} would be dropped"
        raise EngineError("model", name, reason, f"give the {MODEL_CONFIG} that belongs to these weights")
    quantization = getattr(model.config, "quantization_config", None)
    if quantization is not None and getattr(model, "hf_quantizer", None) is None:
        method = quantization.get(METHOD) if isinstance(quantization, dict) else getattr(quantization, METHOD, None)
        reason = f"its config asks for the quantization {method!r}, which was not applied"
        raise EngineError("model", name, reason, "give a model in plain weights, or one quantized by a known method")
    first = {kind: key for key, kind in reversed(kinds) if kind is not None}
    return tuple(
        f"Weights of the model's files that are left out: {kind}, such as {first[kind]}" for kind in sorted(first)
    )


def _left_out(key: str) -> str | None:
    """Of what kind a weight is that a causal language model does not have, by what stands before its layer's number.

    None for another weight, such as one in a layer of the text decoder, whatever its name contains.
    """
    before = _LAYER.split(key)[0]
    return next((kind for words, kind in ENCODERS.items() if any(word in before for word in words)), None)


def _untied_note(model: PreTrainedModel) -> tuple[str, ...]:
    """A note if the config ties the head to the embedding, and the files have another one, which is taken."""
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    tied = getattr(model.config.get_text_config(), "tie_word_embeddings", False) and model._tied_weights_keys
    if head is None or not tied or head.weight is model.get_input_embeddings().weight:
        return ()
    return (
        f"The model's {MODEL_CONFIG} ties the head to the embedding (tie_word_embeddings), and its files have another "
        "head: that one is used",
    )


def _precision_note(name: str, dtype: torch.dtype) -> tuple[str, ...]:
    """A note if weights that are stored in float16 are computed in bfloat16, as on a GPU by default."""
    raw, _ = PreTrainedConfig.get_config_dict(name)
    tables = [table for table in (raw, raw.get("text_config")) if isinstance(table, dict)]
    halves = any(table.get(field) == "float16" for table in tables for field in ("dtype", "torch_dtype"))
    if dtype != torch.bfloat16 or not halves:
        return ()
    return ("The weights are stored in float16 and rounded to bfloat16 (8 of 11 bits); dtype = float32 keeps them",)


def _context_length(name: str, config: Any, tokenizer: PreTrainedTokenizerBase) -> tuple[int, tuple[str, ...]]:
    """The context length in tokens, and a note if it is shorter than in the config.

    LongRoPE has other frequencies for a sequence beyond its original context; transformers takes them for all rows of a
    batch then, and for all tokens of a row from there on. So the original context is all that can be used. Those of
    dynamic NTK scaling change beyond `max_position_embeddings`.
    """
    length = getattr(config, "max_position_embeddings", 0) or tokenizer.model_max_length
    length = _whole(name, "max_position_embeddings", length)
    rope = getattr(config, "rope_parameters", None) or {}
    by_layer = [rope, *(one for one in rope.values() if isinstance(one, dict))]
    long = [one.get(ORIGINAL) for one in by_layer if one.get("rope_type") == "longrope"]
    shortest = min([length, *(_whole(name, ORIGINAL, one) for one in long)])
    if shortest == length:
        return length, ()
    reason = "the frequencies of its positions (LongRoPE) change for a whole batch where a sequence is longer"
    return shortest, (f"The model's context is {shortest} tokens here, not {length}: {reason}",)


def _whole(name: str, field: str, value: object) -> int:
    """A number of a model's settings; EngineError if it is another value."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0:
        return int(value)
    raise EngineError("model", name, f"its {field} is {quote(value)} and no whole number", "give a whole copy")


def _refuse_not_finite(name: str, model: PreTrainedModel) -> None:
    """Raises EngineError if a weight or a stored buffer is NaN or infinite, or in a form that cannot be tested."""
    for key, tensor in _stored(model):
        if tensor.is_floating_point() and tensor.dtype.itemsize == 1:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise EngineError(
                "model", name, f"its weights {key} are in {kind}", "give the model in bfloat16 or float16"
            )
        # The least and the greatest number are NaN if one is, and take a tenth of the time of `isfinite`.
        if tensor.is_floating_point() and tensor.numel() and not torch.stack(tensor.aminmax()).isfinite().all():
            raise EngineError("model", name, f"its weights {key} hold numbers that are not finite", "give a whole copy")


def text_decoder(model: PreTrainedModel) -> nn.Module:
    """The text decoder of a model: without its head, and without encoders for images or audio."""
    body: nn.Module = model.base_model
    decoder: nn.Module = model.get_decoder()  # type: ignore[no-untyped-call]
    inside = decoder is not model and any(module is decoder for module in body.modules())
    return decoder if inside else body


def _check_tokens(name: str, tokenizer_of: str, tokens: int, vocabulary: int) -> None:
    """Raises EngineError if another tokenizer has more tokens than the model has embeddings, and than its own
    tokenizer.

    A model's own tokenizer may have more: Gemma 3's text models have no embedding for the image token.
    """
    try:
        own = len(AutoTokenizer.from_pretrained(name, trust_remote_code=False))
    except Exception:  # without a tokenizer of its own, only the embeddings count
        own = 0
    if tokens > max(own, vocabulary):
        reason = f"its tokenizer has {tokens} tokens, but {name} has embeddings for {vocabulary}"
        raise EngineError("tokenizer", tokenizer_of, reason, VOCABULARY_REMEDY)


def _read(name: str, tokenizer_of: str, dtype: torch.dtype) -> tuple[Any, PreTrainedTokenizerBase, dict[str, Any]]:
    """The model, its tokenizer, and transformers' report of missing and mismatched weights."""
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # a run shows its own progress
    config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_of, trust_remote_code=False)
    model_and_report: Any = AutoModelForCausalLM.from_pretrained(
        name,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=False,
        attn_implementation=_attention(config),
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # so that they are reported here, and refused by `load`
    )
    model, report = model_and_report
    return model, tokenizer, report


def _attention(config: Any) -> str:
    """The attention implementation to load a model with: soft-capped scores and sinks need eager attention."""
    architecture = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    eager = getattr(config, "attn_logit_softcapping", None) or not getattr(architecture, "_supports_sdpa", True)
    return "eager" if eager else "sdpa"


ENCODERS = {
    ("vision", "visual", "image"): "an encoder of images, which a text does not go through",
    ("audio",): "an encoder of audio, which a text does not go through",
    ("projector",): "a projection of what an encoder makes of images or audio, which a text does not go through",
    ("mtp",): "a head that predicts further tokens ahead (MTP), on which no token's probability depends",
}
"""Parts of names of weights that a causal language model does not have, and what they are."""
METHOD = "quant_method"
ORIGINAL = "original_max_position_embeddings"
_BUFFER = re.compile(r"(^|\.)(inv_freq|masked_bias|position_ids|rotary_emb\.\w+)$")
_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|blocks|block|h)\.\d+\.")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
ADAPTER_BESIDE = f"it has an adapter beside the weights ({ADAPTER_CONFIG}), which would be applied to them"
ADAPTER_REMEDY = "move the adapter to a folder of its own"
FOLDER_REMEDY = f"give a folder with {MODEL_CONFIG}, tokenizer.json and *.safetensors"
MODEL_REMEDY = f"give a hub id, or a folder with {MODEL_CONFIG}, tokenizer.json and *.safetensors"


def weights_digest(model: nn.Module) -> str:
    """A SHA-256 hash of all weights and stored buffers with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, tensor in _stored(model):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().flatten().view(torch.uint8).cpu().numpy().data)
    return digest.hexdigest()


def _stored(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The weights of a model by name, each once, then the buffers that its files store, such as a router's bias."""
    yield from sorted(model.named_parameters())
    stored = model.state_dict(keep_vars=True)
    yield from sorted((name, buffer) for name, buffer in model.named_buffers() if name in stored)
