"""What a GGUF file says and transformers drops: added to the model and its tokenizer, or refused by name."""

import importlib.util
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engines.gguf_files import HEAD, HEADS, THETA, WIDTH, write
from transformers import AutoModelForCausalLM, AutoTokenizer

from cai_base.engines import EngineError
from cai_base.engines.local import gguf, gguf_meaning
from cai_base.engines.tokenizer import load_tokenizer

if importlib.util.find_spec("gguf") is None:
    pytest.skip("the package gguf, of the extra of that name, is not installed", allow_module_level=True)
from gguf import RopeScalingType

BASE = THETA ** -(np.arange(0, HEAD, 2) / HEAD)
"""The frequencies of the small models without a scaling."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAI_BASE_CACHE", str(tmp_path / "cache"))


def refusal(file: Path) -> str:
    with pytest.raises(EngineError) as caught:
        gguf.converted(str(file))
    text = str(caught.value)
    assert text.startswith(f"model {file}: ")
    assert "\n" not in text
    assert text.endswith("give the model as a folder in Hugging Face layout")
    return text


def config(file: Path) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads((Path(gguf.converted(str(file))) / "config.json").read_text())
    return fields


def frequencies(file: Path) -> list[float]:
    """The frequencies of the positions that the model computes with."""
    model = AutoModelForCausalLM.from_pretrained(gguf.converted(str(file)), dtype=torch.float32)
    values: list[float] = model.model.rotary_emb.inv_freq.tolist()
    return values


def llama_3(factor: float) -> np.ndarray[Any, Any]:
    """What llama.cpp's converter divides each frequency by: slow ones by the factor, fast ones by one."""
    wavelengths = 2 * math.pi / BASE
    smooth = np.clip((8192 / wavelengths - 1) / (4 - 1), 0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_the_scaling_of_llama_3_is_rebuilt_from_its_frequencies(tmp_path: Path, factor: float) -> None:
    divisors = llama_3(factor)
    assert list(divisors[:2]) == [1, 1]
    assert 1 < divisors[2] < divisors[3] == factor
    file = write(tmp_path / "a.gguf", extra=lambda writer: writer.add_tensor(gguf_meaning.ROPE_FACTORS, divisors))
    assert config(file)["rope_parameters"] == {
        "rope_theta": THETA,
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    assert frequencies(file) == pytest.approx(list(BASE / divisors), rel=1e-5)


def test_a_linear_scaling_is_that_of_the_layers_that_llama_cpp_scales(tmp_path: Path) -> None:
    def scale(writer: Any) -> None:
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(8.0)

    llama = frequencies(write(tmp_path / "llama.gguf", extra=scale))
    assert llama == pytest.approx(list(BASE / 8), rel=1e-5)
    assert config(write(tmp_path / "gemma.gguf", "gemma3", scale))["rope_parameters"] == {
        "full_attention": {"rope_theta": THETA, "rope_type": "linear", "factor": 8.0},
        "sliding_attention": {"rope_theta": 10_000.0, "rope_type": "default"},
    }


def test_gemmas_scores_are_scaled_by_its_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "a.gguf", "gemma3", head=16)
    assert config(file)["query_pre_attn_scalar"] == 16
    monkeypatch.setenv("CAI_BASE_CACHE", str(tmp_path / "another"))
    monkeypatch.setattr(gguf_meaning, "LARGEST", {"gemma3": 2})  # the 27B model has 62 layers
    assert config(file)["query_pre_attn_scalar"] == WIDTH // HEADS == 8


def test_phi_3_has_the_window_of_its_file(tmp_path: Path) -> None:
    file = write(tmp_path / "a.gguf", "phi3", lambda writer: writer.add_sliding_window(11))
    assert config(file)["sliding_window"] == 11
    none = write(tmp_path / "b.gguf", "phi3", lambda writer: writer.add_sliding_window(0))
    assert config(none)["sliding_window"] is None


def tensor(name: str, *values: float) -> Callable[[Any], None]:
    return lambda writer: writer.add_tensor(name, np.array(values, dtype=np.float32))


def number(name: str, value: float) -> Callable[[Any], None]:
    return lambda writer: writer.add_float32(name, value)


@pytest.mark.parametrize(
    ("architecture", "extra", "message"),
    [
        ("llama", tensor("blk.0.attn_q.bias", *[3.0] * WIDTH), "has the tensor 'blk.0.attn_q.bias'"),
        ("llama", tensor(gguf_meaning.ROPE_FACTORS, 1, 8, 32, 32), "are not those of Llama 3.1"),
        ("llama", lambda writer: writer.add_rope_scaling_type(RopeScalingType.YARN), "rope.scaling.type = 'yarn'"),
        ("llama", number("llama.attention.scale", 0.3), "has llama.attention.scale = 0.3"),
        ("llama", number("llama.attention.value_length", 16), "= 16.0, but transformers takes 8"),
        ("llama", lambda writer: writer.add_causal_attention(False), "attention.causal = False"),
        ("llama", lambda writer: writer.add_expert_count(4), "has llama.expert_count = 4"),
        ("gemma3", number("gemma3.final_logit_softcapping", 30), "= 30.0, but transformers takes 0"),
        ("phi3", lambda writer: None, "does not say its sliding window"),
        ("phi3", tensor("rope_factors_long.weight", 1, 2, 3, 4), "has the tensor 'rope_factors_long.weight'"),
    ],
)
def test_what_would_be_dropped_is_refused_by_its_name(
    tmp_path: Path, architecture: str, extra: Callable[[Any], None], message: str
) -> None:
    assert message in refusal(write(tmp_path / "a.gguf", architecture, extra))


def test_a_field_of_another_type_is_a_damaged_file(tmp_path: Path) -> None:
    file = write(tmp_path / "a.gguf", extra=lambda writer: writer.add_string("llama.attention.value_length", "wide"))
    with pytest.raises(EngineError, match=r"is no GGUF file, or a damaged one \(.*\); fetch it again"):
        gguf.converted(str(file))


def test_fields_that_say_nothing_new_are_no_fault(tmp_path: Path) -> None:
    def extra(writer: Any) -> None:
        writer.add_rope_scaling_type(RopeScalingType.NONE)
        writer.add_key_length(HEAD)
        writer.add_expert_count(0)
        writer.add_logit_scale(1.0)

    assert config(write(tmp_path / "a.gguf", extra=extra))["head_dim"] == HEAD


def test_digits_are_divided_as_the_file_says(tmp_path: Path) -> None:
    pieces = {}
    for pre in ("gpt-2", "smollm"):
        folder = gguf.converted(str(write(tmp_path / f"{pre}.gguf", pre=pre)))
        split = AutoTokenizer.from_pretrained(folder).backend_tokenizer.pre_tokenizer
        pieces[pre] = [piece for piece, _ in split.pre_tokenize_str("a  12 b")]
    assert pieces == {"gpt-2": ["a", "Ġ", "Ġ12", "Ġb"], "smollm": ["a", "ĠĠ", "1", "2", "Ġb"]}


def test_a_division_of_text_that_is_not_known_is_refused(tmp_path: Path) -> None:
    named = refusal(write(tmp_path / "a.gguf", pre="seed-coder"))
    assert "has tokenizer.ggml.pre = 'seed-coder', a division of text that is not known here" in named
    assert "does not say how its tokenizer divides text" in refusal(write(tmp_path / "b.gguf", pre=None))


def test_llama_3_has_a_first_token_and_whole_words_where_the_file_says_nothing(tmp_path: Path) -> None:
    folder = gguf.converted(str(write(tmp_path / "a.gguf", bos=None)))
    assert load_tokenizer(folder).bos == (0,)
    assert AutoTokenizer.from_pretrained(folder).backend_tokenizer.model.ignore_merges
    other = gguf.converted(str(write(tmp_path / "b.gguf", bos=None, pre="gpt-2")))
    assert load_tokenizer(other).bos == ()


def test_a_space_before_a_text_that_the_file_excludes_is_refused(tmp_path: Path) -> None:
    gguf.converted(str(write(tmp_path / "a.gguf", tokenizer="llama", pre="default")))
    file = write(
        tmp_path / "b.gguf", extra=lambda writer: writer.add_add_space_prefix(False), tokenizer="llama", pre="default"
    )
    assert "has tokenizer.ggml.add_space_prefix = False, but" in refusal(file)
