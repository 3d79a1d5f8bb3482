"""Adapters that PEFT made: read as PEFT computes them, or refused by the name of what stands in the way."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from batches import WORDS
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from cai_base.engines import Datum
from cai_base.engines.local import LocalEngine, peft_format
from cai_base.errors import UserError

Folder = Callable[[str], str]
TWO = ["q_proj", "up_proj"]
TOKENS = torch.randint(2, WORDS, (20,), generator=torch.Generator().manual_seed(0))


def make(base: str, folder: Path, **options: Any) -> None:
    """An adapter as PEFT saves it, with weights that change what the model says."""
    torch.manual_seed(0)
    settings = LoraConfig(**({"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 6, "target_modules": TWO} | options))
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), settings)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.2)
    model.save_pretrained(folder)


def by_peft(base: str, folder: Path | None) -> float:
    """The log-probability of the tokens by transformers, with the adapter as PEFT loads it."""
    model = AutoModelForCausalLM.from_pretrained(base)
    if folder is not None:
        model = PeftModel.from_pretrained(model, folder)
    with torch.inference_mode():
        logprobs = model.eval()(TOKENS[None]).logits[0, :-1].log_softmax(dim=-1)
    return float(logprobs.gather(1, TOKENS[1:, None]).sum())


def here(base: str, folder: Path) -> float:
    """The same by this engine."""
    engine = LocalEngine(base, peft_format.shape(folder), sequence_length=32, device="cpu")
    engine.load({"a": folder}, optimizer=False)
    datum = Datum(tuple(TOKENS.tolist()), (0.0, *[1.0] * (len(TOKENS) - 1)))
    return engine.compute_logprobs({"a": [datum]})["a"][0]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"target_modules": "all-linear"},
        {"target_modules": r".*layers\.1\.(self_attn\.v|mlp\.down)_proj"},
        {"target_modules": "all-linear", "exclude_modules": ["o_proj", "layers.0.mlp.up_proj"]},
        {"layers_to_transform": [1]},
        {"layers_to_transform": 0, "layers_pattern": "layers"},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 8}},
        {"rank_pattern": {"layers.0.self_attn.q_proj": 2, r"layers\.\d+\.mlp.*": 1}},
        {"alpha_pattern": {"up_proj": 1.5, "q_proj": 40}},
        {"rank_pattern": {"q_proj": 7, "up_proj": 2}, "alpha_pattern": {"layers.1.mlp.up_proj": 9}, "use_rslora": True},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "orthogonal"},
        {"init_lora_weights": "mica"},
        {"init_lora_weights": "eva", "rank_pattern": {"q_proj": 2}},
        {"lora_dropout": 0.5, "revision": "main"},
    ],
    ids=str,
)
def test_an_adapter_that_is_read_computes_what_peft_computes(
    folder: Folder, tmp_path: Path, options: dict[str, Any]
) -> None:
    base = folder("llama")
    make(base, tmp_path, **options)
    wanted = by_peft(base, tmp_path)
    assert here(base, tmp_path) == pytest.approx(wanted, rel=1e-5)
    assert wanted != pytest.approx(by_peft(base, None), rel=1e-3)


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("init_lora_weights is 'pissa'", {"init_lora_weights": "pissa"}),
        ("init_lora_weights is 'pissa_niter_4'", {"init_lora_weights": "pissa_niter_4"}),
        ("init_lora_weights is 'olora'", {"init_lora_weights": "olora"}),
        ("use_dora", {"use_dora": True}),
        ("modules_to_save", {"modules_to_save": ["lm_head"]}),
        ("bias is 'all'", {"bias": "all"}),
        ("bias is 'lora_only'", {"bias": "lora_only"}),
        ("trainable_token_indices", {"trainable_token_indices": [3, 5]}),
        ("layer_replication", {"layer_replication": [[0, 2], [1, 2]]}),
        ("alora_invocation_tokens", {"alora_invocation_tokens": [3]}),
    ],
)
def test_an_adapter_of_another_variety_is_refused_by_its_field(
    folder: Folder, tmp_path: Path, field: str, options: dict[str, Any]
) -> None:
    make(folder("llama"), tmp_path, **options)
    assert field in refusal(folder, tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("init_lora_weights", start) for start in ("corda", "loftq", "lora_ga", "a-later-one", 2)),
        *(("lora_bias", True), ("target_parameters", ["experts.down"]), ("fan_in_fan_out", True)),
        *(("use_bdlora", {"nblocks": 2}), ("kasa_config", {"beta": 1}), ("a_field_of_tomorrow", "on")),
        *(("rank_pattern", {"q_proj": 0}), ("rank_pattern", ["q_proj"]), ("alpha_pattern", {"q_proj": "x"})),
        *(("rank_pattern", {"(": 2}), ("target_modules", 3), ("layers_to_transform", "x"), ("layers_pattern", ["("])),
        *(("lora_alpha", 0), ("lora_alpha", float("nan")), ("r", True)),
        *(("lora_alpha", -6), ("alpha_pattern", {"q_proj": 0}), ("alpha_pattern", {"q_proj": -1.5})),
        *(("lora_alpha", 1e308), ("lora_alpha", 10**400), ("alpha_pattern", {"q_proj": 1e308})),
    ],
)
def test_a_field_that_would_change_what_is_computed_is_refused_by_its_name(
    folder: Folder, tmp_path: Path, field: str, value: object
) -> None:
    make(folder("llama"), tmp_path)
    change(tmp_path, **{field: value})
    assert f"{field} " in refusal(folder, tmp_path)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"target_modules": [*TWO, "c_attn"]}, "target_modules has 'c_attn', and this model has no such layer"),
        ({"layers_to_transform": [0, 1, 77]}, "layers_to_transform has 77, and this model has no such layer"),
        ({"rank_pattern": {"query_key_value": 4}}, "rank_pattern has 'query_key_value', and this model has no"),
        ({"alpha_pattern": {"layers.9.*": 4}}, "alpha_pattern has 'layers.9.*', and this model has no such layer"),
        ({"lora_alpha": 1e-6}, "alpha 1e-06 at rank 4 scales its updates by less than 1e-06"),
        ({"alpha_pattern": {"q_proj": 1e-30}}, "alpha 1e-30 at rank 4 scales its updates by less than 1e-06"),
    ],
)
def test_what_selects_no_layer_or_scales_to_nothing_is_refused_by_its_name(
    folder: Folder, tmp_path: Path, fields: dict[str, object], says: str
) -> None:
    make(folder("llama"), tmp_path)
    change(tmp_path, **fields)
    assert says in refusal(folder, tmp_path)


def test_an_adapter_whose_b_is_zero_is_read_with_a_note(folder: Folder, tmp_path: Path) -> None:
    make(folder("llama"), tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    save_file({name: tensor * ("lora_A" in name) for name, tensor in load_file(file).items()}, file)
    engine = LocalEngine(folder("llama"), peft_format.shape(tmp_path), sequence_length=32, device="cpu")
    engine.load({"a": tmp_path}, optimizer=False)
    assert any("every B of the adapter" in note for note in engine.notes)


def test_an_unknown_field_that_is_off_is_accepted(folder: Folder, tmp_path: Path) -> None:
    make(folder("llama"), tmp_path)
    change(tmp_path, use_something_new=False, something_else=None, and_more={})
    assert here(folder("llama"), tmp_path) == pytest.approx(by_peft(folder("llama"), tmp_path), rel=1e-5)


FIRST = "base_model.model.model.layers.0.mlp.up_proj.lora_"
SPOILT: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "NaN": (lambda tensors: tensors[f"{FIRST}A.weight"][1].fill_(float("nan")), f"{FIRST}A.weight"),
    "infinite": (lambda tensors: tensors[f"{FIRST}B.weight"][1].fill_(float("inf")), f"{FIRST}B.weight"),
    "only A": (lambda tensors: tensors.pop(f"{FIRST}B.weight"), f"{FIRST}B.weight is missing"),
    "only B": (lambda tensors: tensors.pop(f"{FIRST}A.weight"), f"{FIRST}A.weight is missing"),
    "a lost layer": (
        lambda tensors: [tensors.pop(name) for name in list(tensors) if "layers.0." in name],
        "layers.0.self_attn.q_proj.lora_A.weight is missing",
    ),
    "no tensors": (lambda tensors: tensors.clear(), "holds no tensors"),
    "whole numbers": (
        lambda tensors: tensors.update({f"{FIRST}A.weight": tensors[f"{FIRST}A.weight"].int()}),
        f"{FIRST}A.weight holds torch.int32, and no floating-point numbers",
    ),
    "complex numbers": (
        lambda tensors: tensors.update({f"{FIRST}A.weight": tensors[f"{FIRST}A.weight"].to(torch.complex64)}),
        f"{FIRST}A.weight holds torch.complex64, and no floating-point numbers",
    ),
    "too large for single precision": (
        lambda tensors: tensors.update({f"{FIRST}A.weight": tensors[f"{FIRST}A.weight"].double() + 1e300}),
        f"{FIRST}A.weight holds numbers that are not finite",
    ),
}


@pytest.mark.parametrize("fault", SPOILT)
@pytest.mark.parametrize("targets", [True, False])
def test_damaged_weights_are_refused_with_file_and_tensor(
    folder: Folder, tmp_path: Path, fault: str, targets: bool
) -> None:
    make(folder("llama"), tmp_path)
    if not targets:  # a file that does not tell which layers it adapts
        change(tmp_path, target_modules=None)
    spoil, says = SPOILT[fault]
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    spoil(tensors)
    save_file(tensors, file)
    message = refusal(folder, tmp_path)
    assert message.startswith(str(file))
    assert says in message


@pytest.mark.parametrize("layer", ["lm_head", "model.embed_tokens"])
def test_lora_on_the_embedding_or_the_head_is_refused_by_the_name_of_the_layer(
    folder: Folder, tmp_path: Path, layer: str
) -> None:
    make(folder("llama"), tmp_path, target_modules=["q_proj", layer.rpartition(".")[2]])
    said = refusal(folder, tmp_path)
    assert f"it adapts {layer}, and only linear layers of the decoder are supported" in said
    assert "merge it into the model" in said


@pytest.mark.parametrize("rank", [40, 10**9, 10**30])
def test_a_rank_that_the_weights_do_not_have_is_refused_before_memory_is_taken_for_it(
    folder: Folder, tmp_path: Path, rank: int
) -> None:
    make(folder("llama"), tmp_path, target_modules=["q_proj"])
    change(tmp_path, r=rank)
    assert f"its rank is {rank}, and no matrix of adapter_model.safetensors has more than 32 rows" in refusal(
        folder, tmp_path
    )


def test_weights_in_eight_bits_are_read_as_what_they_are(folder: Folder, tmp_path: Path) -> None:
    make(folder("llama"), tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    eighth = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in load_file(file).items()}
    save_file({name: tensor.float() for name, tensor in eighth.items()}, file)
    wanted = here(folder("llama"), tmp_path)
    save_file(eighth, file)
    assert here(folder("llama"), tmp_path) == wanted


def test_a_file_that_is_cut_off_is_refused(folder: Folder, tmp_path: Path) -> None:
    make(folder("llama"), tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:500])
    assert "cannot be read as safetensors" in refusal(folder, tmp_path)


def test_a_layer_that_the_config_does_not_choose_is_refused(folder: Folder, tmp_path: Path) -> None:
    """PEFT ignores its weights."""
    make(folder("llama"), tmp_path)
    change(tmp_path, layers_to_transform=[0])
    assert "layers.1.self_attn.q_proj.lora_A.weight is of a layer that adapter_config.json does not select" in refusal(
        folder, tmp_path
    )


def change(folder: Path, **fields: object) -> None:
    """Other values in an adapter's configuration."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def refusal(folder: Folder, adapter: Path) -> str:
    """The message about a refused adapter: one line that names its file."""
    with pytest.raises(UserError) as caught:
        here(folder("llama"), adapter)
    message = str(caught.value)
    assert str(adapter) in message
    assert "\n" not in message
    return message
