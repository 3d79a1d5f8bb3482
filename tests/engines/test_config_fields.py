"""Fields of config.json that transformers ignores: refused where they change the model, else named or harmless."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from cai_base import models
from cai_base.engines import Engine
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
    ],
)
def test_a_field_of_another_computation_is_refused_in_a_sentence(
    altered: Callable[[str, dict[str, Any]], Engine], kind: str, field: str, value: object
) -> None:
    with pytest.raises(UserError, match=rf"model .*config\.json has {field} = .* does not read"):
        altered(kind, {field: value})


def test_a_field_of_the_positions_is_a_field(altered: Callable[[str, dict[str, Any]], Engine]) -> None:
    positions = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}
    with pytest.raises(UserError, match=r"has partial_rotary_factor = 0\.5, .* does not read"):
        altered("llama", {"rope_parameters": positions})


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_fields_of_published_models_are_taken_without_a_word(
    altered: Callable[[str, dict[str, Any]], Engine], name: str
) -> None:
    assert not [note for note in altered(*PUBLISHED[name]).notes if "config.json" in note]


def test_a_field_that_repeats_another_is_named_in_a_note(altered: Callable[[str, dict[str, Any]], Engine]) -> None:
    (note,) = [note for note in altered("llama", {"activation": "swiglu"}).notes if "config.json" in note]
    assert "'activation' = 'swiglu'" in note


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
