"""Small random models of many architectures: loaded, packed by their windows, sampled from, trained and exported."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from batches import WORDS, gradient, nll, pairs, stir, tokens
from checkpoints import LENGTH, LORA, SHAPE, save_tokenizer
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedConfig

from cai_base.engines import Batch, SampleRequest
from cai_base.engines.local import LocalEngine

WINDOW = 11
"""Shorter than the shared prefix of the batches here, and than every sequence."""
ALTERNATE = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
NO_SPECIALS = {"pad_token_id": 0}
CONFIGS: dict[str, PreTrainedConfig] = {
    "Llama": transformers.LlamaConfig(**SHAPE),
    "Qwen 2": transformers.Qwen2Config(**SHAPE, use_sliding_window=True, **ALTERNATE),
    "Qwen 3": transformers.Qwen3Config(**SHAPE, head_dim=16, use_sliding_window=True, **ALTERNATE),
    "Mistral": transformers.MistralConfig(**SHAPE, sliding_window=WINDOW),
    "Ministral": transformers.MinistralConfig(
        **SHAPE, sliding_window=WINDOW, layer_types=["sliding_attention"] * 2, head_dim=8
    ),
    "Gemma 2": transformers.Gemma2Config(
        **SHAPE, head_dim=8, query_pre_attn_scalar=8, final_logit_softcapping=5.0, **ALTERNATE, **NO_SPECIALS
    ),
    "Gemma 3": transformers.Gemma3TextConfig(**SHAPE, head_dim=8, query_pre_attn_scalar=8, **ALTERNATE, **NO_SPECIALS),
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
PADDED = {"LFM 2", "Qwen 3.5"}
"""Convolutions and linear attention look at neighbours in a row, whatever their positions."""
KINDS = list(CONFIGS)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    folders: dict[str, str] = {}

    def get(kind: str) -> str:
        if kind not in folders:
            path = tmp_path_factory.mktemp(kind.replace(" ", "-"))
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(CONFIGS[kind])
            for parameter in model.parameters():  # some are not initialised from the config
                if parameter.dim() > 1:
                    torch.nn.init.normal_(parameter, std=0.15)
            model.save_pretrained(path)
            save_tokenizer(path, bos=True)
            folders[kind] = str(path)
        return folders[kind]

    return get


def load(folder: str, *, pack: bool = True) -> LocalEngine:
    engine = LocalEngine(folder, LORA, sequence_length=LENGTH, device="cpu", pack=pack)
    engine.create({"a": 1})
    stir(engine, "a")
    return engine


@pytest.mark.parametrize("kind", KINDS)
def test_packed_equals_padded_or_the_note_says_why_it_is_not_packed(
    checkpoint: Callable[[str], str], kind: str
) -> None:
    packed, padded = load(checkpoint(kind)), load(checkpoint(kind), pack=False)
    assert packed.packed == (kind not in PADDED)
    assert ("Packing is not valid" in " ".join(packed.notes)) == (kind in PADDED)
    batch = pairs(3, 4)
    assert min(len(one.tokens) for one in batch) > 2 * WINDOW
    sums = [engine.compute_logprobs({"a": batch})["a"] for engine in (packed, padded)]
    assert sums[0] == pytest.approx(sums[1], rel=1e-4)
    for engine in (packed, padded):
        engine.forward_backward({"a": Batch(batch, nll)}).result()
    wanted = gradient(padded, "a")
    torch.testing.assert_close(gradient(packed, "a"), wanted, rtol=1e-3, atol=1e-4 * wanted.abs().max().item())


@pytest.mark.parametrize("kind", KINDS)
def test_at_temperature_0_the_response_is_that_of_generate(checkpoint: Callable[[str], str], kind: str) -> None:
    engine = load(checkpoint(kind))
    few_shot = tokens(np.random.default_rng(0), 2 * WINDOW)
    prompts = [few_shot + tokens(np.random.default_rng(i), i) for i in range(1, 8, 2)]
    samples = engine.sample([SampleRequest(None, prompt, 20, 0.0, (), 0) for prompt in prompts])
    model = AutoModelForCausalLM.from_pretrained(checkpoint(kind), dtype=torch.float32)
    for prompt, sample in zip(prompts, samples, strict=True):
        ids = torch.tensor([prompt])
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=20, pad_token_id=0
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
    assert CONFIGS[kind].vocab_size > WORDS
