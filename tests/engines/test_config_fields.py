"""Fields of config.json that transformers ignores: refused where they change the model, else named or harmless."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from batches import tokens
from checkpoints import SHAPE
from shapes import CONFIGS
from transformers import AutoModelForCausalLM, PreTrainedConfig

from cai_base import models
from cai_base.engines import Datum, Engine, SampleRequest
from cai_base.engines.local import LocalEngine, config_fields
from cai_base.errors import UserError

PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "SmolLM2": (
        "llama",
        {"is_llama_config": True, "rope_interleaved": False, "transformers.js_config": {"kv_cache_dtype": {}}},
    ),
    "Llama 3.1": (
        "llama",
        {"pretraining_tp": 1, "mlp_bias": False, "attention_bias": False, "transformers_version": "4.43.0.dev0"},
    ),
    "a model of Unsloth": ("llama", {"unsloth_fixed": True, "unsloth_version": "2025.1.5", "_name_or_path": "a/b"}),
    "Qwen3": ("qwen3", {"max_window_layers": 36, "use_sliding_window": False, "sliding_window": None}),
    "Qwen2.5": ("qwen3", {"use_mrope": False}),
    "Mistral": ("mistral", {"sliding_window": None, "torch_dtype": "bfloat16"}),
}
"""Fields of published files beside those of a plain one, by model."""

EXPERTS = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1}
OTHERS: dict[str, tuple[PreTrainedConfig, dict[str, Any]]] = {
    "gpt-oss": (CONFIGS["gpt-oss"], {"swiglu_limit": 7.0, "experts_per_token": 4, "initial_context_length": 4096}),
    "Gemma 2": (CONFIGS["Gemma 2"], {"sliding_window_size": 11, "hidden_act": "gelu_pytorch_tanh"}),
    "Command R7B": (
        CONFIGS["Cohere 2"],
        {
            **{"position_embedding_type": "rope_gptj", "rotary_pct": 1.0, "use_gated_activation": True},
            **{"order_of_interleaved_layers": "local_attn_first", "use_parallel_block": True, "layer_switch": 4},
        },
    ),
    "DeepSeek V3": (
        transformers.DeepseekV3Config(**SHAPE, **EXPERTS),
        {
            **{"scoring_func": "sigmoid", "topk_method": "noaux_tc", "ep_size": 1, "seq_aux": True},
            **{"aux_loss_alpha": 0.001, "moe_layer_freq": 1, "num_nextn_predict_layers": 1},
        },
    ),
    "StarCoder2": (transformers.Starcoder2Config(**SHAPE), {"norm_type": "layer_norm", "mlp_type": "default"}),
    "Falcon 3": (CONFIGS["Llama"], {"activation": "swiglu", "pretraining_tp": 1}),
    "GPT-J": (
        transformers.GPTJConfig(vocab_size=320, n_embd=32, n_layer=1, n_head=4, rotary_dim=4),
        {"rotary": True, "scale_attn_weights": True, "gradient_checkpointing": False, "resid_pdrop": 0.1},
    ),
    "OLMo 2": (CONFIGS["OLMo 2"], {"attention_dropout": 0.0, "rope_scaling": None}),
    "Phi-4-mini": (CONFIGS["Phi-3"], {"full_attn_mod": 1, "interpolate_factor": 1, "lm_head_bias": False}),
}
"""Fields that published files of other architectures have and transformers does not read, with a config of each."""


@pytest.fixture
def altered(folder: Callable[[str], str], tmp_path: Path) -> Callable[[str, dict[str, Any]], Engine]:
    """Loads a small model of an architecture whose config.json has further fields."""

    def load(kind: str, fields: dict[str, Any]) -> Engine:
        model = tmp_path / "model"
        copytree(folder(kind), model)
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | fields))
        return models.load_model(model, longest=32, threads=1)

    return load


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("llama", "attn_logit_softcapping", 50.0),
        ("llama", "quantization", {"group_size": 64, "bits": 4}),
        ("qwen3", "residual_multiplier", 0.22),
        ("mistral", "no_rope_layers", [1, 0]),
        ("llama", "partial_rotary_factor", 0.5),
        ("llama", "scale_depth", 1.4),
        ("llama", "position_embedding_type", "alibi"),
        ("llama", "rope_ratio", 50),
        ("llama", "mup_multiplier", 2.0),
        ("llama", "attention_scale", 0.1),
        ("llama", "attention_chunk_size", 8),
        ("llama", "qkv_bias", True),
        ("llama", "sliding_window", 8),
        ("llama", "layer_types", ["sliding_attention", "full_attention"]),
        ("llama", "activation", "relu"),
        ("qwen3", "swiglu_limit", 7.0),
    ],
)
def test_a_field_of_another_computation_is_refused_in_a_sentence(
    altered: Callable[[str, dict[str, Any]], Engine], kind: str, field: str, value: object
) -> None:
    with pytest.raises(UserError, match=rf"model .*config\.json has {field} = .* does not read.* delete it from "):
        altered(kind, {field: value})


@pytest.mark.parametrize(
    ("scaling", "said"),
    [
        ({"factor": 4.0}, "without a type of scaling"),
        ({"rope_theta": 10_000.0, "beta_fast": 32}, "without a type of scaling"),
        ({"rope_type": "default", "factor": 4.0}, "of type 'default'"),
        ({"type": "linear", "factor": 4.0, "low_freq_factor": 2.0}, "of type 'linear'"),
    ],
)
def test_a_scaling_of_positions_that_its_type_does_not_read_is_refused(
    altered: Callable[[str, dict[str, Any]], Engine], scaling: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=rf"has \w+_?\w* = [\d.]+ in rope_scaling {said}, which does not read it"):
        altered("llama", {"rope_scaling": scaling})


@pytest.mark.parametrize("scaling", [{"type": "linear", "factor": 2.0}, {"rope_type": "dynamic", "factor": 2.0}])
def test_a_scaling_of_a_known_type_is_taken(
    altered: Callable[[str, dict[str, Any]], Engine], scaling: dict[str, Any]
) -> None:
    assert not [note for note in altered("llama", {"rope_scaling": scaling}).notes if "config.json" in note]


@pytest.mark.parametrize("name", OTHERS)
def test_what_published_files_say_and_their_architecture_does_anyway_is_no_other_computation(
    name: str, tmp_path: Path
) -> None:
    config, fields = OTHERS[name]
    config.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(stored | fields))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    notes = config_fields.check(str(tmp_path), model)
    for field in ("swiglu_limit", "position_embedding_type", "scoring_func", "norm_type", "activation", "rotary"):
        assert not any(field in note for note in notes)


def test_a_field_of_the_positions_is_a_field(altered: Callable[[str, dict[str, Any]], Engine]) -> None:
    positions = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}
    with pytest.raises(UserError, match=r"has partial_rotary_factor = 0\.5, .* does not read"):
        altered("llama", {"rope_parameters": positions})


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_fields_of_published_models_are_taken_without_a_word(
    altered: Callable[[str, dict[str, Any]], Engine], name: str
) -> None:
    assert not [note for note in altered(*PUBLISHED[name]).notes if "config.json" in note]


def test_a_field_that_is_not_known_is_named_in_a_note(altered: Callable[[str, dict[str, Any]], Engine]) -> None:
    (note,) = [note for note in altered("llama", {"mlp_type": "wide"}).notes if "config.json" in note]
    assert "'mlp_type' = 'wide'" in note


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_hidden_layers", 5_000_000),
        ("hidden_size", 1 << 20),
        ("intermediate_size", 1 << 28),
        ("vocab_size", 1 << 30),
    ],
)
def test_a_size_that_the_files_cannot_hold_is_refused_before_anything_is_made(
    altered: Callable[[str, dict[str, Any]], Engine], field: str, value: int
) -> None:
    began = time.process_time()
    with pytest.raises(UserError, match=rf"config\.json has .*{field} = {value:,}"):
        altered("llama", {field: value})
    assert time.process_time() - began < 3


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("eos_token_id", -5, "the number of a token, from 0 on, or a list"),
        ("eos_token_id", 10**30, "the number of a token, from 0 on, or a list"),
        ("eos_token_id", [1, "2"], "the number of a token, from 0 on, or a list"),
        ("bos_token_id", "<s>", "the number of a token, or null"),
        ("pad_token_id", -7, "the number of a token, or null"),
        ("max_position_embeddings", 0, "a whole number, 1 to 2,147,483,647"),
        ("max_position_embeddings", -2048, "a whole number, 1 to "),
        ("max_position_embeddings", 10**30, "a whole number, 1 to "),
        ("vocab_size", "32000", "a whole number, 1 to "),
        ("num_hidden_layers", 0, "a whole number, 1 to "),
        ("num_hidden_layers", True, "a whole number, 1 to "),
        ("num_attention_heads", 2.5, "a whole number, 1 to "),
        ("rope_theta", -1, "a finite number above 0"),
        ("rope_theta", float("inf"), "a finite number above 0"),
        ("rope_theta", "10000", "a finite number above 0"),
        ("rms_norm_eps", -1e-6, "a number from 0 to below 1"),
        ("tie_word_embeddings", "no", "true or false"),
    ],
)
def test_a_field_of_another_kind_or_out_of_its_range_is_refused_with_what_is_right(
    altered: Callable[[str, dict[str, Any]], Engine], field: str, value: object, wanted: str
) -> None:
    with pytest.raises(UserError, match=rf"config\.json has {field} = .*; it must be {wanted}"):
        altered("llama", {field: value})


def test_a_model_without_an_end_among_its_tokens_is_refused(folder: Callable[[str], str], tmp_path: Path) -> None:
    model = Path(copytree(folder("llama"), tmp_path / "model"))
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, -1]}))
    with pytest.raises(UserError, match=r"generation_config\.json has eos_token_id = .*; it must be the number"):
        models.load_model(model, longest=32, threads=1)
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": [1_000_000]}))
    settings = json.loads((model / "tokenizer_config.json").read_text())
    settings.pop("eos_token", None)
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=r"its end token 1000000 is not among its [0-9,]+ tokens, so no answer would"):
        models.load_model(model, longest=32, threads=1)


def test_a_window_that_the_architecture_does_not_read_is_no_window(
    altered: Callable[[str, dict[str, Any]], Engine], folder: Callable[[str], str]
) -> None:
    """With Qwen's switch, as configs have it that were copied from a Qwen; without, it is refused."""
    ours = altered("llama", {"sliding_window": 16, "use_sliding_window": False})
    plain = models.load_model(Path(folder("llama")), longest=32, threads=1)
    assert isinstance(ours, LocalEngine)
    assert ours.packed
    (note,) = ours.notes
    assert "transformers does not read: 'sliding_window' = 16" in note
    row = tokens(np.random.default_rng(0), 60)
    data = {None: [Datum(row, (0.0, *[1.0] * 59))]}
    assert ours.compute_logprobs(data) == plain.compute_logprobs(data)
    asked = [SampleRequest(None, row, 10, 0.0, (), 0)]
    samples = plain.sample(asked)
    for cache in ("shared", "transformers"):
        ours._layout = replace(ours._layout, cache=cache)  # type: ignore[arg-type]
        assert ours.sample(asked) == samples
