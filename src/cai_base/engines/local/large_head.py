"""Log-probabilities under a frozen head of a large vocabulary, and their gradient, without its logits in memory.

For a vocabulary of 262,144 the logits of 400 tokens are 0.4 GB, which a softmax and its gradient read and write ten
times: that costs more than the arithmetic. Here the vocabulary is taken block by block, so that a block's logits stay
in the processor's cache, and the gradient is made in the same pass (Liger Kernel, arXiv 2410.10989, does so by rows;
the running maximum is that of Milakov and Gimelshein, arXiv 1805.02867).
"""

from typing import Any

import torch
from torch import Tensor, nn

LARGE = 8192
"""Vocabularies above this are taken block by block."""
BLOCK = 8192
"""Tokens of the vocabulary in one block."""
ROWS = 1024
"""Outputs whose logits of a block exist at a time."""


def takes(head: object) -> bool:
    """Whether `token_logprobs` computes what this head does: a frozen matrix, nothing else, of a large vocabulary."""
    return type(head) is nn.Linear and head.bias is None and not head.weight.requires_grad and head.out_features > LARGE


def read_once(head: nn.Module) -> None:
    """Have a large head read its weights once for all rows.

    The last columns of prompts' outputs are strided, and PyTorch multiplies each row of a strided input by itself:
    for 24 rows and a vocabulary of 262,144 that takes 8 times as long, and in bfloat16 it copies the weights, too.
    """
    if takes(head):
        head.register_forward_pre_hook(lambda _, inputs: (_dense(inputs[0]), *inputs[1:]))


def _dense(values: Tensor) -> Tensor:
    """The same values with the strides of a new tensor; `contiguous` leaves those of dimensions of size 1."""
    return values.clone(memory_format=torch.contiguous_format)


def token_logprobs(head: nn.Linear, outputs: Tensor, tokens: Tensor) -> Tensor:
    """log p of `tokens [n]` at `outputs [n, features]`, in fp32 `[n]`."""
    logprobs: Tensor = _TokenLogprobs.apply(outputs, head.weight, tokens)  # type: ignore[no-untyped-call]
    return logprobs


class _TokenLogprobs(torch.autograd.Function):
    """d log p(t) / d output = W[t] - sum over the vocabulary of p(v) W[v]; one pass makes both."""

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, weight: Tensor, tokens: Tensor) -> Tensor:
        parts = [
            _forward(part, weight, own, gradient=ctx.needs_input_grad[0])
            for part, own in zip(torch.split(outputs, ROWS), torch.split(tokens, ROWS), strict=True)
        ]
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(torch.cat([gradient for _, gradient in parts if gradient is not None]))
        return torch.cat([logprobs for logprobs, _ in parts])

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (upstream[0][:, None] * gradient).to(gradient.dtype), None, None


def _forward(outputs: Tensor, weight: Tensor, tokens: Tensor, *, gradient: bool) -> tuple[Tensor, Tensor | None]:
    """The log-probabilities `[n]` of `tokens`, and their gradient `[n, features]` with respect to `outputs`."""
    n = len(outputs)
    top = torch.full((n, 1), -torch.inf, device=outputs.device)
    total = torch.zeros(n, 1, device=outputs.device)
    chosen = torch.zeros(n, 1, device=outputs.device)
    mean = torch.zeros(n, outputs.shape[1], device=outputs.device) if gradient else None
    for start in range(0, len(weight), BLOCK):
        block = weight[start : start + BLOCK]
        logits = (outputs @ block.T).float()
        inside = (tokens >= start) & (tokens < start + len(block))
        place = torch.where(inside, tokens - start, 0)[:, None]
        chosen += torch.where(inside[:, None], logits.gather(1, place), 0.0)
        higher = torch.maximum(top, logits.amax(dim=1, keepdim=True))
        shrink = (top - higher).exp_()
        weights = logits.sub_(higher).exp_()
        total = total * shrink + weights.sum(dim=1, keepdim=True)
        if mean is not None:
            mean.mul_(shrink).add_(weights.to(block.dtype) @ block)
        top = higher
    logprobs = (chosen - top - total.log())[:, 0]
    if mean is None:
        return logprobs, None
    return logprobs, (weight[tokens].float() - mean / total).to(outputs.dtype)
