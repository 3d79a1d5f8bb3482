"""Log-probabilities under the head of a large vocabulary, taken block by block, beside the plain computation."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cai_base.engines.local import large_head

FEATURES = 24


def frozen_head(vocabulary: int, dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(FEATURES, vocabulary, bias=False).requires_grad_(False).to(dtype)


def plain(head: nn.Linear, outputs: Tensor, tokens: Tensor) -> Tensor:
    return -F.cross_entropy(head(outputs).float(), tokens, reduction="none")


@pytest.mark.parametrize("vocabulary", [large_head.LARGE + 1, 3 * large_head.BLOCK - 7])
@pytest.mark.parametrize("scale", [1.0, 60.0])  # at 60 single tokens have all of the probability
def test_values_and_gradients_are_those_of_the_whole_softmax(vocabulary: int, scale: float) -> None:
    head = frozen_head(vocabulary)
    rows = large_head.ROWS + 5
    base = torch.randn(rows, FEATURES) * scale
    tokens = torch.randint(0, vocabulary, (rows,))
    tokens[:2] = torch.tensor([0, vocabulary - 1])
    upstream = torch.randn(rows)
    results = []
    for compute in (plain, large_head.token_logprobs):
        outputs = base.clone().requires_grad_()
        logprobs = compute(head, outputs, tokens)
        (gradient,) = torch.autograd.grad(logprobs @ upstream, outputs)
        results.append((logprobs.detach(), gradient))
    (wanted, wanted_gradient), (got, got_gradient) = results
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(got_gradient, wanted_gradient, rtol=1e-4, atol=1e-4)


def test_half_precision_weights_give_fp32_log_probabilities_near_the_whole_softmax() -> None:
    head = frozen_head(large_head.LARGE + 100, torch.bfloat16)
    outputs = torch.randn(9, FEATURES).bfloat16().requires_grad_()
    tokens = torch.arange(9) * 900
    logprobs = large_head.token_logprobs(head, outputs, tokens)
    (gradient,) = torch.autograd.grad(logprobs.sum(), outputs)
    assert logprobs.dtype == torch.float32
    assert gradient.dtype == torch.bfloat16
    torch.testing.assert_close(logprobs, plain(head, outputs, tokens), rtol=0, atol=0.02)


def test_a_head_that_is_trained_has_a_bias_or_is_small_uses_the_plain_computation() -> None:
    assert large_head.takes(frozen_head(large_head.LARGE + 1))
    assert not large_head.takes(frozen_head(large_head.LARGE))
    assert not large_head.takes(nn.Linear(FEATURES, large_head.LARGE + 1, bias=False))
    assert not large_head.takes(nn.Linear(FEATURES, large_head.LARGE + 1).requires_grad_(False))


@pytest.mark.parametrize("rows", [1, 3])
def test_the_weights_are_read_once_for_all_rows_of_a_strided_input(rows: int) -> None:
    head = frozen_head(large_head.LARGE + 1)
    large_head.read_once(head)
    last = torch.randn(rows, 7, FEATURES)[:, -1:]
    with torch.profiler.profile() as profiled:
        logits = head(last)
    names = {event.name for event in profiled.events()}
    assert "aten::mm" in names
    assert "aten::bmm" not in names
    torch.testing.assert_close(logits, last @ head.weight.T)
