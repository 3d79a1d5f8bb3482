"""What a GGUF file says of its model beyond what transformers takes from it: added to the config, or refused by name.

transformers takes a list of fields and tensors for each architecture and drops the rest without a word. What a field or
a tensor means is what llama.cpp computes with it.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch

from cai_base.engines import EngineError
from cai_base.reading import quote

REMEDY = "give the model as a folder in Hugging Face layout"
WITHOUT_EFFECT = (
    *("context_length", "tensor_data_layout", "pooling_type"),
    *("rope.scaling.finetuned", "rope.scaling.original_context_length"),
)
"""Fields that change nothing that is computed here. The last two describe a scaling that is refused by its own name."""
SCALING = ("rope.scaling.type", "rope.scaling.factor", "rope.scale_linear")
LINEAR = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3")
"""Architectures whose positions can be scaled linearly."""
LARGEST = {"gemma2": 46, "gemma3": 62}
"""The number of layers by which llama.cpp knows the 27B models, whose scores are scaled by the width of a head's share
of the hidden size and not by that of a head."""
ROPE_FACTORS = "rope_freqs.weight"
LLAMA_3 = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""The scaling of Llama 3.1 and later; its factor is 8 or 32."""


def complete(
    model: str,
    architecture: str,
    settings: Mapping[str, Any],
    taken: Collection[str],
    ignored: Collection[str],
    factors: np.ndarray[Any, Any] | None,
    network: Any,
) -> None:
    """Add to the config of a model what its file says and transformers did not take.

    Args:
        model: the file's name, for messages.
        architecture: as the file has it.
        settings: the file's fields of this architecture, without its name before them.
        taken: those that transformers turned into fields of the config.
        ignored: the names of tensors that transformers did not take.
        factors: the tensor `ROPE_FACTORS`, if there is one.
        network: the model that transformers made of the file; its config is changed, its weights are not.

    Raises:
        EngineError: something in the file can be neither added nor left out without changing what is computed.
    """
    config = network.config
    for tensor in sorted(ignored):
        if tensor != ROPE_FACTORS or architecture != "llama":
            raise _refusal(model, f"has the tensor {quote(tensor)}, which transformers does not take")
    _set_score_scale(architecture, config)
    _set_window(model, architecture, settings, config)
    factor = _scaling(model, architecture, settings)
    if factor != 1 and factors is not None:
        raise _refusal(model, f"scales its positions twice, by {SCALING[1]} and by {ROPE_FACTORS}")
    if factor != 1:
        _rope(config).update(rope_type="linear", factor=factor)
    if factors is not None:
        _set_rope_factors(model, factors, network)
    _compare(model, architecture, settings, taken, config)


def _refusal(model: str, what: str) -> EngineError:
    return EngineError("model", model, f"{what}: the model would compute something else", REMEDY)


def _set_score_scale(architecture: str, config: Any) -> None:
    """Gemma's scale of the attention's scores, which is in no field and follows from the sizes."""
    if architecture in LARGEST:
        largest = config.num_hidden_layers == LARGEST[architecture]
        share = config.hidden_size // config.num_attention_heads
        config.query_pre_attn_scalar = share if largest else config.head_dim


def _set_window(model: str, architecture: str, settings: Mapping[str, Any], config: Any) -> None:
    """The sliding window where transformers does not take it: of Phi-3, and of Mistral, which has none in GGUF."""
    if architecture == "phi3":
        if "attention.sliding_window" not in settings:
            raise _refusal(model, "does not say its sliding window (phi3.attention.sliding_window)")
        config.sliding_window = settings["attention.sliding_window"] or None
    elif config.model_type == "mistral":
        config.sliding_window = None


def _scaling(model: str, architecture: str, settings: Mapping[str, Any]) -> float:
    """The factor by which positions are divided."""
    kind = settings.get("rope.scaling.type", "linear")
    factor = float(settings.get("rope.scaling.factor", settings.get("rope.scale_linear", 0)) or 1)
    if kind == "none" or (kind == "linear" and factor == 1):
        return 1.0
    if kind == "linear" and architecture in LINEAR:
        return factor
    raise _refusal(model, f"has {architecture}.rope.scaling.type = {quote(kind)}, which is not read here")


def _rope(config: Any) -> dict[str, Any]:
    """The settings of the rotary embedding, of layers with full attention where they differ from those with a
    window."""
    parameters: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    inner: dict[str, Any] | None = parameters.get("full_attention")
    return parameters if inner is None else inner


def _set_rope_factors(model: str, factors: np.ndarray[Any, Any], network: Any) -> None:
    """Llama 3's scaling, of which the file has only what each frequency is divided by."""
    rotary = next(type(part) for part in network.modules() if type(part).__name__.endswith("RotaryEmbedding"))
    divisors = torch.from_numpy(np.array(factors, dtype=np.float32)).flatten()
    unscaled = rotary(network.config).inv_freq
    factor = divisors.max().item()
    if factor != 1:
        network.config.rope_parameters = {**_rope(network.config), **LLAMA_3, "factor": factor}
    scaled = rotary(network.config).inv_freq
    if divisors.shape != unscaled.shape or not torch.allclose(scaled * divisors, unscaled, rtol=1e-5, atol=0):
        raise _refusal(model, f"has {ROPE_FACTORS} that are not those of Llama 3.1")


def _compare(model: str, architecture: str, settings: Mapping[str, Any], taken: Collection[str], config: Any) -> None:
    """Compare the file's fields with what the config says.

    Raises:
        EngineError: a field differs from the config, or nothing says what its value is here.
    """
    values = _values(config)
    for name, value in sorted(settings.items()):
        if name in WITHOUT_EFFECT or name in SCALING:
            continue
        field = f"{architecture}.{name} = {quote(value)}"
        own = values.get(name)
        if own is not None:
            if not _same(value, own):
                raise _refusal(model, f"has {field}, but transformers takes {quote(own)}")
        elif name not in taken and not _is_neutral(value):
            raise _refusal(model, f"has {field}, which transformers does not take")


def _values(config: Any) -> dict[str, Any]:
    """What a config says, under the names of GGUF; None where it says nothing."""

    def of(*names: str) -> Any:
        return next((value for name in names if (value := getattr(config, name, None)) is not None), None)

    heads, hidden = of("num_attention_heads"), of("hidden_size")
    head = of("head_dim") or (hidden // heads if heads and hidden else None)
    rope, layers = _rope(config), of("layer_types")
    parameters = getattr(config, "rope_parameters", None) or {}
    own_window = parameters.get("sliding_attention", rope)
    part = rope.get("partial_rotary_factor") or of("partial_rotary_factor") or 1
    return {
        "block_count": of("num_hidden_layers"),
        "embedding_length": hidden,
        "feed_forward_length": of("intermediate_size"),
        "expert_feed_forward_length": of("moe_intermediate_size"),
        "vocab_size": of("vocab_size"),
        "use_parallel_residual": of("use_parallel_residual"),
        "attention.head_count": heads,
        "attention.head_count_kv": of("num_key_value_heads"),
        "attention.key_length": head if of("global_head_dim") is None else None,
        "attention.value_length": head if of("global_head_dim") is None else None,
        "attention.layer_norm_rms_epsilon": of("rms_norm_eps", "norm_eps", "layer_norm_epsilon"),
        "attention.layer_norm_epsilon": of("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"),
        "attention.causal": True,
        "attention.sliding_window": of("sliding_window") or 0,
        "attention.sliding_window_pattern": layers and [kind == "sliding_attention" for kind in layers],
        "attn_logit_softcapping": of("attn_logit_softcapping") or 0,
        "final_logit_softcapping": of("final_logit_softcapping") or 0,
        "rope.dimension_count": None if head is None else int(head * part),
        "rope.freq_base": rope.get("rope_theta"),
        "rope.freq_base_swa": own_window.get("rope_theta"),
    }


def _same(value: Any, own: Any) -> bool:
    """Whether a field has the config's value, to the precision of a field; a value a layer may be of all layers."""
    if isinstance(value, list) and not isinstance(own, list):
        return set(value) <= {0, own} and own in value
    if isinstance(own, list):
        period = value if isinstance(value, int) and not isinstance(value, bool) else None
        return list(own) == (value if period is None else [bool((i + 1) % period) for i in range(len(own))])
    return math.isclose(value, own, rel_tol=1e-5)


def _is_neutral(value: object) -> bool:
    """Whether a value says that something is not there: nothing, false, zero, or a factor of one."""
    return not value or (isinstance(value, float) and value == 1)
