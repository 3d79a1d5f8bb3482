"""Weights in oneDNN's order: where responses are drawn from a large vocabulary, and nowhere else."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from cai_base.engines import Datum, SampleRequest
from cai_base.engines.local import LocalEngine, large_head, ordered
from cai_base.engines.local.ordered import OrderedWeights

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"), reason="this PyTorch has no such product"
)


def model_of(vocabulary: int, *, tied: bool = False, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        attention_bias=True,
        tie_word_embeddings=tied,
        initializer_range=0.2,
    )
    return cast(PreTrainedModel, LlamaForCausalLM(config).to(dtype).eval().requires_grad_(False))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_logits_from_ordered_weights_are_the_model_s(rows: int, tied: bool) -> None:
    model = model_of(large_head.LARGE + 5, tied=tied)
    ids = torch.randint(0, large_head.LARGE, (rows, 7))
    with torch.inference_mode():
        wanted = model(input_ids=ids).logits
        with OrderedWeights(model).used(), torch.profiler.profile() as profiled:
            got = model(input_ids=ids).logits
        again = model(input_ids=ids).logits
    names = {event.name for event in profiled.events()}
    assert "mkldnn::_linear_pointwise" in names
    assert not {"aten::mm", "aten::addmm"} & names
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
    assert torch.equal(again, wanted), "outside, the model multiplies as before"


@pytest.mark.parametrize(
    "model", [model_of(large_head.LARGE), model_of(large_head.LARGE + 5, dtype=torch.bfloat16)], ids=["small", "bf16"]
)
def test_a_small_vocabulary_and_another_precision_have_no_copies(model: PreTrainedModel) -> None:
    with torch.inference_mode(), OrderedWeights(model).used(), torch.profiler.profile() as profiled:
        model(input_ids=torch.zeros(1, 3, dtype=torch.long))
    assert "mkldnn::_linear_pointwise" not in {event.name for event in profiled.events()}


def test_copies_take_no_more_memory_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(large_head.LARGE + 5)
    head = cast(nn.Linear, model.get_output_embeddings())  # type: ignore[no-untyped-call]
    for most, layers in ((head.weight.nbytes, 1), (head.weight.nbytes - 1, 0)):
        monkeypatch.setattr(ordered, "MOST", most)
        with torch.inference_mode(), OrderedWeights(model).used(), torch.profiler.profile() as profiled:
            model(input_ids=torch.zeros(1, 3, dtype=torch.long))
        assert [event.name for event in profiled.events()].count("mkldnn::_linear_pointwise") == layers


@pytest.mark.parametrize("part", ["head", "layers"])
def test_a_model_of_two_precisions_has_copies_of_what_is_in_float32(part: str) -> None:
    model = model_of(large_head.LARGE + 5)
    head = cast(nn.Linear, model.get_output_embeddings())  # type: ignore[no-untyped-call]
    (head if part == "head" else model.base_model).to(torch.bfloat16)
    with torch.inference_mode(), OrderedWeights(model).used(), torch.profiler.profile() as profiled:
        head(torch.zeros(1, 32, dtype=head.weight.dtype))
    names = [event.name for event in profiled.events()]
    assert names.count("mkldnn::_linear_pointwise") == (part == "layers")


def test_an_engine_draws_by_them_and_trains_without(engine: Callable[..., LocalEngine]) -> None:
    ours = engine("large")
    ours.create({"a": 0})
    requests = [SampleRequest("a", prompt, 3, 1.0, (), 0) for prompt in ((5, 6, 7), (5, 6, 8, 9))]
    names = []
    for work in (lambda: ours.sample(requests), lambda: ours.compute_logprobs({"a": [Datum((5, 6, 7), (0, 0, 1))]})):
        with torch.profiler.profile() as profiled:
            work()
        names.append({event.name for event in profiled.events()})
    assert "mkldnn::_linear_pointwise" in names[0]
    assert "mkldnn::_linear_pointwise" not in names[1]


def test_without_pytorch_s_operation_the_plain_product_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    model = model_of(large_head.LARGE + 5)
    with torch.inference_mode(), OrderedWeights(model).used():
        assert model(input_ids=torch.zeros(1, 3, dtype=torch.long)).logits.isfinite().all()
