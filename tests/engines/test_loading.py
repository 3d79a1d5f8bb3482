"""Folders that hold a model, folders that do not, and what their tokenizers are like."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from checkpoints import SHAPE, save_tokenizer
from safetensors.torch import load_file, save_file
from tokenizers import processors
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertLMHeadModel,
    Glm4MoeConfig,
    GPT2Config,
    GPT2LMHeadModel,
)

from cai_base import machine
from cai_base.dialogue import prompt_tokens
from cai_base.engines import EngineError, EngineSpec, Lora
from cai_base.engines.local import LocalEngine, construct
from cai_base.engines.local import model as local_model
from cai_base.engines.tokenizer import HubTokenizer, load_tokenizer

Folder = Callable[[str], str]


@pytest.fixture
def copy(folder: Folder, tmp_path: Path) -> Path:
    """A folder with a model, to be spoilt."""
    return Path(shutil.copytree(folder("llama"), tmp_path / "model"))


EXPERTS = {
    **{"moe_intermediate_size": 32, "n_routed_experts": 4, "num_experts_per_tok": 2, "first_k_dense_replace": 1},
    **{"head_dim": 8, "n_group": 1, "topk_group": 1, "pad_token_id": 0},
}


def message(model: Path | str) -> str:
    """The message about a model that cannot be loaded: one line that names it and says what would be right."""
    with pytest.raises(EngineError) as caught:
        LocalEngine(str(model), Lora(4, 4), sequence_length=32, device="cpu")
    text = str(caught.value)
    assert text.startswith(f"model {model}: ")
    assert "--model" not in text, "an engine knows no flag"
    assert "\n" not in text
    return text


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert "there is no such folder; give a folder with config.json" in message(tmp_path / "nowhere")
    assert "there is no such folder; give a folder with config.json" in message("./nowhere")


@pytest.mark.parametrize("name", ["nowhere", "models/of/mine", "C:\\models\\mine", "nowhere/"])
def test_a_name_that_cannot_be_a_hub_id_is_not_requested_from_the_hub(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cai_base.engines.local.model._read", lambda *args: pytest.fail("the hub was asked"))
    assert "there is no such folder, and a hub id has the form owner/name" in message(name)


def test_an_empty_folder(tmp_path: Path) -> None:
    assert "no config.json" in message(tmp_path)


def test_a_config_that_is_not_json(copy: Path) -> None:
    (copy / "config.json").write_text("{")
    assert "cannot be loaded" in message(copy)


def test_a_model_of_unknown_type(copy: Path) -> None:
    (copy / "config.json").write_text(json.dumps({"model_type": "crystal-ball"}))
    assert "crystal-ball" in message(copy)


def test_a_model_that_is_no_causal_language_model(copy: Path) -> None:
    (copy / "config.json").write_text(json.dumps({"model_type": "t5", "architectures": ["T5EncoderModel"]}))
    assert "cannot be loaded as a causal language model" in message(copy)


def test_a_model_that_looks_ahead(copy: Path, tmp_path: Path) -> None:
    shape = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertLMHeadModel(BertConfig(**shape, intermediate_size=64, initializer_range=0.2)).save_pretrained(copy)
    assert "not causal" in message(copy)


def test_a_model_without_linear_layers(copy: Path) -> None:
    GPT2LMHeadModel(GPT2Config(vocab_size=320, n_embd=16, n_layer=1, n_head=2)).save_pretrained(copy)
    assert "no linear layers" in message(copy)


def test_no_weights(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    assert "no *.safetensors" in message(copy)


def test_pickled_weights_are_not_read(copy: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(copy)
    (copy / "model.safetensors").unlink()
    torch.save(model.state_dict(), copy / "pytorch_model.bin")
    assert "pickled weights are not read" in message(copy)


def test_weights_of_another_model(copy: Path, folder: Folder) -> None:
    shutil.copy(Path(folder("qwen3")) / "config.json", copy)
    assert "lack weights" in message(copy)


def test_damaged_weights(copy: Path) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    assert "cannot be loaded" in message(copy)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite(copy: Path, value: float) -> None:
    weights = load_file(copy / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = value
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    assert "its weights model.layers.1.mlp.up_proj.weight hold numbers that are not finite" in message(copy)


def add_tensor(copy: Path, name: str) -> None:
    weights = load_file(copy / "model.safetensors")
    save_file(weights | {name: torch.ones(320)}, copy / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("name", ["lm_head.bias", "model.embed_positions.weight"])
def test_weights_outside_the_layers_that_the_config_leaves_out(copy: Path, name: str) -> None:
    add_tensor(copy, name)
    assert f"weights that its config leaves out, such as {name}: they would be dropped" in message(copy)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("vision_tower.encoder.layers.0.fc1.weight", "an encoder of images"),
        ("audio_tower.conv.weight", "an encoder of audio"),
        ("multi_modal_projector.linear.weight", "a projection of what an encoder makes"),
        ("mtp.layers.0.fc.weight", "a head that predicts further tokens"),
    ],
)
def test_weights_that_a_text_does_not_need_are_left_out_and_said(copy: Path, name: str, kind: str) -> None:
    add_tensor(copy, name)
    (note,) = LocalEngine(str(copy), Lora(4, 4), sequence_length=32, device="cpu").notes
    assert f"left out: {kind}" in note
    assert note.endswith(f"such as {name}")


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.image_gate.weight", "model.layers.1.mlp.mtp_norm.weight"])
def test_a_weight_in_a_layer_of_the_text_is_not_left_out_for_its_name(copy: Path, name: str) -> None:
    add_tensor(copy, name)
    assert f"weights that its config leaves out, such as {name}" in message(copy)


def test_another_head_than_the_embedding_that_the_config_ties_it_to_is_used_and_said(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    assert not config["tie_word_embeddings"]
    (copy / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    (note,) = LocalEngine(str(copy), Lora(4, 4), sequence_length=32, device="cpu").notes
    assert "(tie_word_embeddings), and its files have another head: that one is used" in note


def test_weights_in_float16_that_are_rounded_to_bfloat16_are_said(copy: Path) -> None:
    AutoModelForCausalLM.from_pretrained(copy, dtype=torch.float16).save_pretrained(copy)
    on_a_gpu = local_model.load(str(copy), torch.device("cpu"), torch.bfloat16)  # the type that a GPU has by default
    assert "stored in float16 and rounded to bfloat16" in on_a_gpu.notes[0]
    assert local_model.load(str(copy), torch.device("cpu"), torch.float32).notes == ()


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"])
def test_buffers_of_an_older_version_are_no_fault(copy: Path, name: str) -> None:
    add_tensor(copy, name)
    assert LocalEngine(str(copy), Lora(4, 4), sequence_length=32, device="cpu").notes == ()


def test_an_adapter_beside_the_weights_is_not_applied_to_them(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = LocalEngine(str(copy), Lora(4, 4), sequence_length=32, device="cpu")
    engine.create({"a": 0})
    engine.export({"a": copy})
    said = message(copy)
    assert "an adapter beside the weights (adapter_config.json)" in said
    assert said.endswith("move the adapter to a folder of its own")
    monkeypatch.setattr(local_model, "check_folder", lambda name: None)  # a model of the hub is seen once it is loaded
    assert "an adapter beside the weights" in message(copy)


def test_weights_in_a_form_that_cannot_be_tested(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = local_model._read

    def in_8_bits(*where: Any) -> Any:
        model, *rest = read(*where)
        model.model.layers[0].mlp.up_proj.to(torch.float8_e4m3fn)  # as where the GPU computes with such weights
        return model, *rest

    monkeypatch.setattr(local_model, "_read", in_8_bits)
    assert "its weights model.layers.0.mlp.up_proj.weight are in float8_e4m3fn; give the model in bf" in message(copy)


def test_a_routers_bias_is_a_weight(tmp_path: Path) -> None:
    digests = []
    for value in (0.0, 1.0, float("nan")):
        model = AutoModelForCausalLM.from_config(Glm4MoeConfig(**SHAPE, **EXPERTS))
        model.save_pretrained(tmp_path)
        save_tokenizer(tmp_path, bos=True)
        weights = load_file(tmp_path / "model.safetensors")
        (name,) = [name for name in weights if name.endswith("e_score_correction_bias")]
        first = {key: torch.ones_like(tensor) for key, tensor in weights.items()}
        first[name] = torch.full_like(weights[name], value)
        save_file(first, tmp_path / "model.safetensors", {"format": "pt"})
        if value == value:
            loaded = local_model.load(str(tmp_path), torch.device("cpu"), torch.float32)
            digests.append(loaded.digest)
        else:
            assert f"its weights {name} hold numbers that are not finite" in message(tmp_path)
    assert len(set(digests)) == 2


def test_a_config_with_fewer_layers_than_the_weights(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    said = message(copy)
    assert "its files have weights that its config leaves out, such as model.layers.1." in said
    assert "layers would be dropped; give the config.json that belongs to these weights" in said


@pytest.mark.parametrize("asked", [{"quant_method": "crystal"}, {"quant_method": 7}, {}])
def test_a_quantization_that_would_be_ignored(copy: Path, asked: dict[str, object]) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"quantization_config": asked}))
    assert "quantization" in message(copy)


def test_adapters_that_do_not_fit_the_memory_are_refused_when_the_model_is_loaded(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a model of the hub or a GGUF file, of which nothing was known before, and for a GPU."""
    lora, two = Lora(4, 4), EngineSpec(str(copy), "mine", 32, Lora(4, 4), adapters=2)
    weights = 2 * lora.rank * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 64))
    monkeypatch.setattr(machine, "memory", lambda: 2 * weights * machine.TRAINED)
    construct(two)
    with pytest.raises(EngineError) as caught:
        construct(replace(two, adapters=3))
    said = caught.value.message_for("--lora.rank")
    assert said.startswith(f"--lora.rank 4: 3 adapters of {weights:,} weights take at least 0.0 GiB in training")
    assert said.endswith("give fewer seeds (2 at most) or a lower rank")


def test_no_tokenizer(copy: Path) -> None:
    for file in copy.glob("tokenizer*"):
        file.unlink()
    assert "tokenizer" in message(copy)


def test_code_in_a_model_folder_is_not_run(copy: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (copy / "evil.py").write_text(f"open({str(ran)!r}, 'w')\n")
    config = json.loads((copy / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}}
    (copy / "config.json").write_text(json.dumps(config))
    assert "cannot be loaded" in message(copy)
    assert not ran.exists()


@pytest.mark.parametrize(("kind", "bos"), [("llama", (0,)), ("qwen3", ()), ("mistral", (0,))])
def test_the_first_token_is_the_tokenizers_own(
    engine: Callable[[str], LocalEngine], kind: str, bos: tuple[int, ...]
) -> None:
    tokenizer = engine(kind).tokenizer
    assert tokenizer.bos == bos
    assert tokenizer.eos == {1}
    assert tokenizer.encode("") == []
    for text in ("the bread is warm", " and\n\nUser: é☃", "a"):
        assert not set(bos) & set(tokenizer.encode(text))
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_every_token_that_a_tokenizer_puts_before_a_text_begins_a_prompt(folder: Callable[[str], str]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder("llama"))
    two = processors.TemplateProcessing(single="</s> <s> $A", special_tokens=[("</s>", 1), ("<s>", 0)])  # as GLM-4's
    tokenizer.backend_tokenizer.post_processor = two
    ours = HubTokenizer(tokenizer)
    assert prompt_tokens(ours, "bread") == (1, 0, *ours.encode("bread")) == tuple(tokenizer("bread")["input_ids"])
    assert ours.unused_bos is None


def test_a_text_that_spells_a_special_token_stays_text(engine: Callable[[], LocalEngine]) -> None:
    tokenizer = engine().tokenizer
    ids = tokenizer.encode("the end</s> <s>")
    assert not {0, 1} & set(ids)
    assert tokenizer.decode(ids) == "the end</s> <s>"
    assert tokenizer.decode([*ids, 1]) == "the end</s> <s>"


def test_the_context_is_the_models(engine: Callable[[], LocalEngine]) -> None:
    assert engine().context_length == 256


def first_token(copy: Path, *, added: bool) -> LocalEngine:
    """An engine on the model, whose tokenizer has the first token `<s>` and adds it or not."""
    tokenizer = AutoTokenizer.from_pretrained(copy)
    if not added:
        tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.save_pretrained(copy)
    return LocalEngine(str(copy), Lora(4, 4), sequence_length=32, device="cpu")


def test_a_first_token_that_the_tokenizer_does_not_add_is_a_warning_with_its_effect_on_the_nll(copy: Path) -> None:
    text = "The weather was cold this morning, so we stayed at home and read a book until it was time for lunch."
    model = AutoModelForCausalLM.from_pretrained(copy).eval()
    ids = AutoTokenizer.from_pretrained(copy)(text, return_tensors="pt")["input_ids"]
    assert ids[0, 0] == 0
    means = []
    for tokens in (ids, ids[:, 1:]):
        with torch.inference_mode():
            logprobs = model(tokens).logits[0, :-1].log_softmax(dim=-1).gather(1, tokens[0, 1:, None])
        means.append(-logprobs[-(ids.shape[1] - 2) :].mean().item())
    assert first_token(copy, added=True).notes == ()
    engine = first_token(copy, added=False)
    assert engine.tokenizer.bos == ()
    (note,) = engine.notes
    assert "has a first token (<s>) and does not add it" in note
    assert f"{means[0]:.2f} with it, {means[1]:.2f} without" in note
    assert LocalEngine(str(copy), Lora(4, 4), sequence_length=32, device="cpu", findings=engine.findings()).notes == (
        note,
    )


def test_a_tokenizer_without_a_first_token_is_not_a_warning(engine: Callable[[str], LocalEngine]) -> None:
    assert engine("qwen3").notes == ()


@pytest.mark.parametrize(
    "load", [load_tokenizer, lambda name: local_model.load(name, torch.device("cpu"), torch.float32)]
)
def test_a_model_of_the_hub_without_a_network_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], load: Callable[[str], object]
) -> None:
    """Against a port of this machine at which nothing listens; the hub's client would log two lines for each try."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(_http.time, "sleep", lambda _: None)
    with pytest.raises(EngineError, match="is not in the cache, and the hub cannot be reached; check the connection"):
        load("nobody/nothing-of-this-name")
    assert "Retry" not in capfd.readouterr().err


def test_a_model_of_the_hub_that_has_no_place_on_the_disk_is_refused_before_a_download(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = [
        SimpleNamespace(will_download=True, file_size=1 << 60),
        SimpleNamespace(will_download=False, file_size=1 << 62),
    ]
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: files)
    monkeypatch.setattr(local_model, "_read", lambda *_: pytest.fail("it was downloaded"))
    says = message("owner/large")
    assert "1,152,921,504.6 GB are to be downloaded, and " in says
    assert "set HF_HOME to a larger disk" in says
