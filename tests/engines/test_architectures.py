"""Small random models of many architectures: loaded, packed by their windows, sampled from, trained and exported."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from batches import WORDS, gradient, nll, pairs, sequence, stir, tokens
from checkpoints import LENGTH, LORA
from peft import PeftModel
from safetensors.torch import load_file
from shapes import CONFIGS, EAGER, PADDED, WINDOW, save
from transformers import AutoModelForCausalLM

from cai_base.engines import Batch, SampleRequest
from cai_base.engines.local import LocalEngine
from cai_base.engines.local.masks import FULL, SLIDING

KINDS = list(CONFIGS)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    folders: dict[str, str] = {}

    def get(kind: str) -> str:
        if kind not in folders:
            path = tmp_path_factory.mktemp(kind.replace(" ", "-"))
            save(kind, path)
            folders[kind] = str(path)
        return folders[kind]

    return get


@pytest.mark.parametrize(("kind", "noted"), [("gpt-oss", True), ("Qwen 3", False)])
def test_experts_that_are_not_trained_are_said(kind: str, noted: bool, tmp_path: Path) -> None:
    save(kind, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    inside = {name: tensor.numel() for name, tensor in weights.items() if "embed" not in name and "lm_head" not in name}
    adapted = sum(size for name, size in inside.items() if name.endswith("_proj.weight"))
    engine = LocalEngine(str(tmp_path), LORA, sequence_length=32, device="cpu")
    said = [note for note in engine.notes if "LoRA adapts the linear layers" in note]
    assert len(said) == noted
    if noted:
        assert f"{adapted / sum(inside.values()):.0%} of the decoder's weights" in said[0]
        assert not LocalEngine(str(tmp_path), None, sequence_length=32, device="cpu").notes


def load(folder: str, *, pack: bool = True) -> LocalEngine:
    engine = LocalEngine(folder, LORA, sequence_length=LENGTH, device="cpu", pack=pack)
    engine.create({"a": 1})
    stir(engine, "a")
    return engine


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_loaded_with_eager_attention_only_where_it_needs_it(
    checkpoint: Callable[[str], str], kind: str
) -> None:
    loaded = load(checkpoint(kind))._model.config.get_text_config()._attn_implementation
    assert loaded == ("eager" if kind in EAGER else "sdpa")


@pytest.mark.parametrize("kind", KINDS)
def test_packed_equals_padded_or_the_note_says_why_it_is_not_packed(
    checkpoint: Callable[[str], str], kind: str
) -> None:
    packed, padded = load(checkpoint(kind)), load(checkpoint(kind), pack=False)
    assert packed.packed == (kind not in PADDED)
    assert ("Packing is not valid" in " ".join(packed.notes)) == (kind in PADDED)
    types = {*(getattr(CONFIGS[kind].get_text_config(), "layer_types", None) or ())} - {FULL, SLIDING}
    assert all(one in packed.notes[0] for one in types), "the note names the layers that are the reason"
    batch = pairs(3, 4)
    assert min(len(one.tokens) for one in batch) > 2 * WINDOW
    sums = [engine.compute_logprobs({"a": batch})["a"] for engine in (packed, padded)]
    assert sums[0] == pytest.approx(sums[1], rel=1e-4)
    for engine in (packed, padded):
        engine.forward_backward({"a": Batch(batch, nll)}).result()
    wanted = gradient(padded, "a")
    torch.testing.assert_close(gradient(packed, "a"), wanted, rtol=1e-3, atol=1e-4 * wanted.abs().max().item())


@pytest.mark.parametrize("kind", KINDS)
def test_in_bfloat16_answers_together_have_the_log_probabilities_of_each_alone(
    checkpoint: Callable[[str], str], kind: str
) -> None:
    """A response begins right behind the branch, where a convolution or a recurrent state is most wrong."""
    engine = LocalEngine(checkpoint(kind), LORA, sequence_length=256, device="cpu", dtype=torch.bfloat16)
    assert engine.packed == (kind not in PADDED)
    generator = np.random.default_rng(0)
    prompt = tokens(generator, 120)
    answers = [sequence(prompt, tokens(generator, 6)) for _ in range(2)]
    together = engine.compute_logprobs({None: answers})[None]
    alone = [engine.compute_logprobs({None: [one]})[None][0] for one in answers]
    assert together == pytest.approx(alone, abs=6 * 0.03), "six tokens, each rounded by a few parts in 256"


@pytest.mark.parametrize("kind", KINDS)
def test_at_temperature_0_the_response_is_that_of_generate(checkpoint: Callable[[str], str], kind: str) -> None:
    engine = load(checkpoint(kind))
    few_shot = tokens(np.random.default_rng(0), 2 * WINDOW)
    prompts = [few_shot + tokens(np.random.default_rng(i), i) for i in range(1, 8, 2)]
    lengths = (2, 3, 20, 20)  # the first two are dropped from the batch when they are finished
    samples = engine.sample(
        [SampleRequest(None, prompt, n, 0.0, (), 0) for prompt, n in zip(prompts, lengths, strict=True)]
    )
    model = AutoModelForCausalLM.from_pretrained(checkpoint(kind), dtype=torch.float32)
    for prompt, n, sample in zip(prompts, lengths, samples, strict=True):
        ids = torch.tensor([prompt])
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=n, pad_token_id=0
        )
        assert list(sample.tokens) == out[0, len(prompt) :].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_adapter_has_the_log_probabilities_of_peft(
    checkpoint: Callable[[str], str], tmp_path: Path, kind: str
) -> None:
    engine = load(checkpoint(kind))
    engine.export({"a": tmp_path})
    theirs = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(checkpoint(kind), dtype=torch.float32), tmp_path
    ).eval()
    batch = pairs(5, 3)
    wanted = []
    for one in batch:
        with torch.inference_mode():
            logprobs = theirs(torch.tensor([one.tokens])).logits[0, :-1].float().log_softmax(dim=-1)
        each = logprobs.gather(1, torch.tensor(one.tokens[1:])[:, None])[:, 0]
        wanted.append(float((each * torch.tensor(one.weights[1:])).sum()))
    sums = engine.compute_logprobs({"a": batch, None: batch})
    assert sums["a"] == pytest.approx(wanted, rel=1e-4)
    assert sums["a"] != pytest.approx(sums[None], rel=1e-3)
    assert CONFIGS[kind].get_text_config().vocab_size > WORDS


@pytest.mark.parametrize("kind", KINDS)
def test_a_prefix_kept_once_an_adapter_changes_no_token_or_is_not_kept(
    checkpoint: Callable[[str], str], kind: str
) -> None:
    engine = load(checkpoint(kind))
    few_shot = tokens(np.random.default_rng(0), 2 * WINDOW)
    prompts = [few_shot + tokens(np.random.default_rng(i), i) for i in range(1, 8)]
    asked = [SampleRequest(name, prompt, 20, 1.0, (), i) for name in (None, "a") for i, prompt in enumerate(prompts)]
    samples = engine.sample(asked)
    assert engine.findings().layout.cache == ("transformers" if kind in PADDED else "shared")
    engine._layout = replace(engine._layout, cache="transformers" if kind in PADDED else "rows")
    assert [sample.tokens for sample in engine.sample(asked)] == [sample.tokens for sample in samples]
