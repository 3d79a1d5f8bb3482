"""The forms in which weights are published: in shards, in half precision, tied, padded beyond the tokenizer."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from batches import pairs, stir, tokens
from checkpoints import LENGTH, LORA, VOCABULARY
from numpy.random import default_rng
from peft import PeftModel
from shapes import save
from transformers import AutoModelForCausalLM, AutoTokenizer

from cai_base.engines import Datum, EngineError, SampleRequest
from cai_base.engines.local import LocalEngine

PADDING = 48
"""Rows of the embedding that no token of the tokenizer has; published models are padded to a round number."""
FORMS: Mapping[str, tuple[dict[str, Any], torch.dtype, dict[str, Any]]] = {
    "in shards": ({}, torch.float32, {"max_shard_size": "30KB"}),
    "bfloat16": ({}, torch.bfloat16, {}),
    "float16, in shards": ({}, torch.float16, {"max_shard_size": "20KB"}),
    "head tied to the embedding": ({"tie_word_embeddings": True}, torch.float32, {}),
    "head of its own": ({"tie_word_embeddings": False}, torch.float32, {}),
    "vocabulary padded beyond the tokenizer": ({"vocab_size": VOCABULARY + PADDING}, torch.float32, {}),
}
"""The fields of the config, the type of the stored weights, and how they are saved."""
SHAPES = ("Llama", "Qwen 3", "Gemma 3")
"""Those whose weights are stored in every form here; Gemma 3 ties its head unless its config says otherwise."""
Checkpoint = Callable[..., Path]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    made: dict[tuple[str, str], Path] = {}

    def get(form: str, kind: str = "Llama") -> Path:
        if (form, kind) not in made:
            fields, dtype, saved = FORMS[form]
            made[form, kind] = tmp_path_factory.mktemp("form")
            save(kind, made[form, kind], dtype=dtype, fields=fields, **saved)
        return made[form, kind]

    return get


def load(folder: Path) -> LocalEngine:
    engine = LocalEngine(str(folder), LORA, sequence_length=LENGTH, device="cpu")
    engine.create({"a": 1})
    stir(engine, "a")
    return engine


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("form", FORMS)
def test_the_base_model_and_an_exported_adapter_have_the_log_probabilities_of_transformers_and_peft(
    checkpoint: Checkpoint, tmp_path: Path, form: str, kind: str
) -> None:
    shards = len(list(checkpoint(form, kind).glob("*.safetensors")))
    assert (shards > 1) == ("in shards" in form)
    engine = load(checkpoint(form, kind))
    assert engine.packed
    if "head" in form:
        assert engine._model.config.tie_word_embeddings == ("tied" in form)
    engine.export({"a": tmp_path})
    theirs = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(checkpoint(form, kind), dtype=torch.float32), tmp_path
    ).eval()
    batch = pairs(5, 3)
    sums = engine.compute_logprobs({"a": batch, None: batch})
    assert sums["a"] == pytest.approx(sums_of(theirs, batch), rel=1e-4)
    with theirs.disable_adapter():
        assert sums[None] == pytest.approx(sums_of(theirs, batch), rel=1e-4)
    assert sums["a"] != pytest.approx(sums[None], rel=1e-3)


def sums_of(model: Any, batch: list[Datum]) -> list[float]:
    """The weighted log-probability sums, one sequence at a time."""
    sums = []
    for one in batch:
        with torch.inference_mode():
            logprobs = model(torch.tensor([one.tokens])).logits[0, :-1].log_softmax(dim=-1)
        each = logprobs.gather(1, torch.tensor(one.tokens[1:])[:, None])[:, 0]
        sums.append(float((each * torch.tensor(one.weights[1:])).sum()))
    return sums


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("form", FORMS)
def test_at_temperature_0_the_response_is_that_of_generate(checkpoint: Checkpoint, form: str, kind: str) -> None:
    engine, decoder = load(checkpoint(form, kind)), AutoTokenizer.from_pretrained(checkpoint(form, kind))
    model = AutoModelForCausalLM.from_pretrained(checkpoint(form, kind), dtype=torch.float32)
    prompts = [tokens(default_rng(i), 8 + i) for i in range(6)]
    samples = engine.sample([SampleRequest(None, prompt, 20, 0.0, (), 0) for prompt in prompts])
    for prompt, sample in zip(prompts, samples, strict=True):
        ids = torch.tensor([prompt])
        given = {"do_sample": False, "max_new_tokens": 20, "pad_token_id": 0}
        wanted = model.generate(ids, attention_mask=torch.ones_like(ids), **given)[0, len(prompt) :].tolist()
        assert list(sample.tokens) == wanted
        assert sample.text == decoder.decode(wanted, skip_special_tokens=True)
    if "padded" in form:
        assert any(token >= VOCABULARY for sample in samples for token in sample.tokens), "such a token has no text"


def test_a_checkpoint_without_one_of_its_shards_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    shards = sorted(checkpoint("in shards").glob("*.safetensors"))
    for file in checkpoint("in shards").iterdir():
        if file != shards[1]:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(EngineError) as caught:
        LocalEngine(str(tmp_path), LORA, sequence_length=LENGTH, device="cpu")
    assert str(caught.value).startswith(f"model {tmp_path}: ")
    assert shards[1].name in str(caught.value)
    assert "\n" not in str(caught.value)
