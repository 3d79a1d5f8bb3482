"""What decides how a model is laid out: its layers, its head, and the frequencies of its positions."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from batches import gradient, nll, pairs, sequence, stir, tokens
from checkpoints import LENGTH, LORA, SHAPE
from shapes import CONFIGS, NO_SPECIALS, save
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from cai_base.engines import Batch, Datum, EngineError
from cai_base.engines.local import LocalEngine, forward, layout
from cai_base.engines.local.depth import in_float32

OPT = transformers.OPTConfig(
    vocab_size=320, hidden_size=32, word_embed_proj_dim=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4
)
"""Its own forward goes past its `base_model`."""
LLAMA_4 = transformers.Llama4TextConfig(
    **SHAPE, head_dim=8, num_local_experts=2, intermediate_size_mlp=64, **NO_SPECIALS
)
"""The text model alone: its `base_model` is itself."""
LONG = {
    "short_factor": [1.0] * 4,
    "long_factor": [3.0] * 4,
    "original_max_position_embeddings": 64,
    "partial_rotary_factor": 1.0,
}
ROPES: dict[str, tuple[str, dict[str, Any]]] = {
    "longrope": (
        "Phi-3",
        {
            "rope_parameters": {"rope_type": "longrope", "rope_theta": 10000.0, **LONG},
            "original_max_position_embeddings": 64,
        },
    ),
    "dynamic": (
        "Llama",
        {
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
            "max_position_embeddings": 64,
        },
    ),
}


def random_model(config: PreTrainedConfig, dtype: torch.dtype, **fields: Any) -> PreTrainedModel:
    """A model with random weights in this precision."""
    config = deepcopy(config)
    for name, value in fields.items():
        setattr(config, name, value)
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=config.initializer_range)
    return model.to(dtype).eval().requires_grad_(False)  # type: ignore[no-any-return]


@pytest.mark.parametrize("cast", [True, False])
@pytest.mark.parametrize("kind", ["LFM 2", "Qwen 3.5"])
def test_what_looks_at_neighbours_in_a_row_is_seen_right_behind_the_branch(kind: str, cast: bool) -> None:
    """Also where the config says nothing of it, and where only bfloat16 is at hand."""
    model = random_model(CONFIGS[kind], torch.bfloat16)
    start, (first, second) = tokens(np.random.default_rng(0), 200), ((5,), (6,))
    first, second = ((*start, *end, *tokens(np.random.default_rng(1), 55)) for end in (first, second))
    before = {name: one.data_ptr() for name, one in model.named_parameters()}
    if cast:
        with in_float32(model):
            reason = layout._difference(model, False, first, second, 200)
    else:
        reason = layout._difference(model, False, first, second, 200)
    assert reason is not None
    assert "nats at 256 tokens" in reason
    assert {name: one.data_ptr() for name, one in model.named_parameters()} == before, "its own weights are back"
    assert model.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("config", "fields", "own"),
    [
        (CONFIGS["Gemma 2"], {"final_logit_softcapping": 30.0, "initializer_range": 0.05}, True),
        (CONFIGS["Cohere 2"], {"logit_scale": 0.5, "initializer_range": 0.02}, True),
        (transformers.GraniteConfig(**SHAPE), {"logits_scaling": 1.01, "initializer_range": 0.02}, True),
        (CONFIGS["Llama"], {}, False),
        (OPT, {"initializer_range": 0.15}, False),
    ],
)
def test_in_bfloat16_a_head_that_caps_or_scales_is_kept_however_small_the_logits(
    config: PreTrainedConfig, fields: dict[str, Any], own: bool
) -> None:
    model = random_model(config, torch.bfloat16, **fields)
    own_head = layout.compare_layouts(model, 32, pack=False)[0].own_head
    assert own_head == own
    row = [tokens(np.random.default_rng(0), 24)]
    with torch.inference_mode():
        logprobs = model(torch.tensor(row)).logits[0, :-1].float().log_softmax(dim=-1)
        wanted = logprobs.gather(1, torch.tensor(row[0][1:])[:, None])[:, 0]
        got = forward.weighted_logprobs(
            model, forward.Layout(False, own_head, 0.0), [[Datum(row[0], (0.0, *[1.0] * 23))]]
        )
    torch.testing.assert_close(got[0][0], wanted, rtol=0.0, atol=0.05)


def test_a_model_that_is_not_a_decoder_and_a_head_is_refused_in_a_sentence() -> None:
    with pytest.raises(EngineError, match="Llama4ForCausalLM has no base_model apart from its head"):
        layout.compare_layouts(random_model(LLAMA_4, torch.float32), 32, pack=True)


def test_logits_of_a_head_of_its_own_are_made_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save("Gemma 2", tmp_path)
    engine = LocalEngine(str(tmp_path), LORA, sequence_length=LENGTH, device="cpu")
    engine.create({"a": 1})
    stir(engine, "a")
    batch, results, rows = pairs(1, 4), [], []
    engine._model.lm_head.register_forward_hook(lambda *call: rows.append(call[2].numel() // call[2].shape[-1]))  # type: ignore[union-attr]
    for chunk in (4096, 8):
        monkeypatch.setattr(forward, "HEAD_CHUNK", chunk)
        rows.clear()
        sums = engine.compute_logprobs({"a": batch})["a"]
        assert sum(rows) == sum(int(np.count_nonzero(one.weights)) for one in batch), "of no other token"
        engine.forward_backward({"a": Batch(batch, nll)}).result()
        assert max(rows) <= chunk
        results.append((sums, gradient(engine, "a")))
        engine._bank.adapters["a"].gradient = None
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.inference_mode():
        logprobs = model(torch.tensor([batch[0].tokens])).logits[0, :-1].log_softmax(dim=-1)
    wanted = sum(
        logprobs[i, t].item() * w
        for i, (t, w) in enumerate(zip(batch[0].tokens[1:], batch[0].weights[1:], strict=True))
    )
    assert engine.compute_logprobs({None: batch})[None][0] == pytest.approx(wanted, rel=1e-4)
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rope", ROPES)
def test_frequencies_that_change_with_the_longest_row_of_a_batch_are_never_reached(tmp_path: Path, rope: str) -> None:
    kind, fields = ROPES[rope]
    save(kind, tmp_path, fields=fields)
    engine = LocalEngine(str(tmp_path), LORA, sequence_length=LENGTH, device="cpu", pack=False)
    assert engine.context_length == 64
    assert any("64 tokens here, not 256" in note for note in engine.notes) == (rope == "longrope")
    generator = np.random.default_rng(0)
    rows = [sequence(tokens(generator, n), tokens(generator, 8)) for n in (8, 56)]
    alone = [engine.compute_logprobs({None: [row]})[None][0] for row in rows]
    assert engine.compute_logprobs({None: rows})[None] == pytest.approx(alone, rel=1e-4)
    assert engine.compute_logprobs({None: rows[:1]})[None] == alone[:1], "and it has no history"
    with pytest.raises(EngineError, match="a sequence of 65 tokens does not fit its context of 64"):
        engine.compute_logprobs({None: [sequence(tokens(generator, 57), tokens(generator, 8))]})
