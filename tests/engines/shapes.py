"""The shapes of published models, small and with random weights: what docs/real-models.md has a row for, and more."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import transformers
from checkpoints import SHAPE, save_tokenizer
from transformers import AutoModelForCausalLM, PreTrainedConfig

WINDOW = 11
"""Shorter than the shared prefix of the batches here, and than every sequence."""
ALTERNATE = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
NO_SPECIALS = {"pad_token_id": 0}
GEMMA = {"head_dim": 8, "query_pre_attn_scalar": 8, **ALTERNATE, **NO_SPECIALS}
VISION = {
    **{"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
    **{"image_size": 28, "patch_size": 14},
}
CONFIGS: dict[str, PreTrainedConfig] = {
    "Llama": transformers.LlamaConfig(**SHAPE),
    "Qwen 2": transformers.Qwen2Config(**SHAPE, use_sliding_window=True, **ALTERNATE),
    "Qwen 3": transformers.Qwen3Config(**SHAPE, head_dim=16, use_sliding_window=True, **ALTERNATE),
    "Mistral": transformers.MistralConfig(**SHAPE, sliding_window=WINDOW),
    "Ministral": transformers.MinistralConfig(
        **SHAPE, sliding_window=WINDOW, layer_types=["sliding_attention"] * 2, head_dim=8
    ),
    "Gemma 2": transformers.Gemma2Config(**SHAPE, final_logit_softcapping=5.0, attn_logit_softcapping=2.0, **GEMMA),
    "Gemma 3": transformers.Gemma3TextConfig(**SHAPE, **GEMMA),
    "Gemma 3, multimodal": transformers.Gemma3Config(  # from 4B on
        text_config={**SHAPE, **GEMMA},
        vision_config=VISION,
        mm_tokens_per_image=4,
        **{"image_token_index": 2, "boi_token_index": 3, "eoi_token_index": 4},
    ),
    "Gemma 3n": transformers.Gemma3nTextConfig(
        **(SHAPE | {"num_hidden_layers": 4}),
        **{"head_dim": 8, "sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"] * 2},
        **{"num_kv_shared_layers": 2, "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0]},
        **{"vocab_size_per_layer_input": SHAPE["vocab_size"], "hidden_size_per_layer_input": 8},
        **NO_SPECIALS,
    ),
    "Gemma 4": transformers.Gemma4TextConfig(
        **(SHAPE | {"num_hidden_layers": 4}),
        **{"head_dim": 8, "sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"] * 2},
        **{"num_kv_shared_layers": 2, "global_head_dim": 16},
        **{"vocab_size_per_layer_input": SHAPE["vocab_size"], "hidden_size_per_layer_input": 8},
        **NO_SPECIALS,
    ),
    "OLMo 2": transformers.Olmo2Config(**SHAPE, **NO_SPECIALS),
    "OLMo 3": transformers.Olmo3Config(**SHAPE, **ALTERNATE, **NO_SPECIALS),
    "Phi-3": transformers.Phi3Config(**SHAPE, sliding_window=WINDOW, **NO_SPECIALS),
    "gpt-oss": transformers.GptOssConfig(
        **SHAPE, head_dim=8, num_local_experts=4, num_experts_per_tok=2, **ALTERNATE, **NO_SPECIALS
    ),
    "Cohere 2": transformers.Cohere2Config(**SHAPE, logit_scale=0.5, **ALTERNATE, **NO_SPECIALS),
    "Qwen 3.5": transformers.Qwen3_5TextConfig(
        **SHAPE,
        head_dim=8,
        layer_types=["linear_attention", "full_attention"],
        **{f"linear_num_{part}_heads": 2 for part in ("key", "value")},
        **{f"linear_{part}_head_dim": 8 for part in ("key", "value")},
        **NO_SPECIALS,
    ),
    "LFM 2": transformers.Lfm2Config(**SHAPE, layer_types=["conv", "full_attention"], **NO_SPECIALS),
}
PADDED = {"LFM 2": "convolutions", "Qwen 3.5": "linear attention"}
"""What looks at neighbours in a row, whatever their positions."""
EAGER = {"Gemma 2": "soft caps", "gpt-oss": "sinks"}
"""What PyTorch's own attention function does not compute."""
TOKENIZERS = {
    "Llama": ("llama-3", "llama-2"),
    "Qwen 2": ("qwen",),
    "Qwen 3": ("qwen",),
    "Mistral": ("llama-2", "tekken"),
    "Gemma 2": ("gemma",),
    "Gemma 3": ("gemma",),
    "Gemma 3, multimodal": ("gemma",),
    "OLMo 2": ("llama-3",),
    "OLMo 3": ("llama-3",),
    "Phi-3": ("llama-2", "o200k"),
    "gpt-oss": ("o200k",),
}
"""The kinds of tokenizer that models of this shape were published with; kinds as in `small_tokenizers`."""


def save(kind: str, folder: Path, *, dtype: torch.dtype = torch.float32, fields: Any = (), **saved: Any) -> None:
    """A model of this shape with random weights, and a tokenizer.

    Args:
        kind: one of `CONFIGS`.
        folder: where to.
        dtype: the type of its stored weights.
        fields: of its config, other than in `CONFIGS`.
        saved: how transformers saves it.
    """
    config = deepcopy(CONFIGS[kind])
    for name, value in dict(fields).items():
        setattr(config, name, value)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():  # some are not initialised from the config
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
        elif name.endswith("sinks"):
            torch.nn.init.normal_(parameter, std=1.0)
    model.to(dtype).save_pretrained(folder, **saved)
    save_tokenizer(folder, bos=True)
