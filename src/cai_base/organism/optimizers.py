"""The optimizers of pretraining, Muon and AdamW, and their learning rate schedule."""

from collections.abc import Iterable
from math import cos, pi

import torch
from transformers import LlamaForCausalLM

from cai_base.organism.model import Settings


def steps_per_part(tokens: int, settings: Settings) -> tuple[int, int]:
    """The number of steps over the first and over the late part of the corpus, for a total number of tokens."""
    late_tokens = round(tokens * settings.late_share)
    tokens_per_step = settings.context * settings.rows_per_step
    return max(1, (tokens - late_tokens) // tokens_per_step), late_tokens // tokens_per_step


def learning_rate_share(step: int, first_steps: int, late_steps: int, settings: Settings) -> float:
    """The learning rate at a step, relative to its peak. The late part has its own schedule with a lower peak."""
    if step < first_steps:
        return _warm_up_and_cosine(step, first_steps, settings)
    return settings.late_rate * _warm_up_and_cosine(step - first_steps, late_steps, settings)


def _warm_up_and_cosine(step: int, steps: int, settings: Settings) -> float:
    """Linear warm-up to 1, then half a cosine down to `final_rate_share`."""
    warm_up_steps = max(1, round(settings.warm_up * steps))
    if step < warm_up_steps:
        return (step + 1) / warm_up_steps
    progress = (step - warm_up_steps) / max(1, steps - warm_up_steps)
    return settings.final_rate_share + (1 - settings.final_rate_share) * 0.5 * (1 + cos(pi * progress))


def optimizers(model: LlamaForCausalLM, settings: Settings) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the embedding and the norms."""
    inner = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name]
    outer = [p for name, p in model.named_parameters() if p.dim() != 2 or "embed" in name]
    return (
        Muon(inner, settings.matrix_rate, momentum=0.95, weight_decay=settings.weight_decay),
        torch.optim.AdamW(outer, lr=settings.adam_rate, betas=(0.9, 0.98), weight_decay=settings.weight_decay),
    )


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose update of a matrix is orthogonalised (Jordan et al. 2024, "Muon"), in float32.

    torch's own Muon orthogonalises in bfloat16, which most laptops only emulate.
    """

    def __init__(self, matrices: Iterable[torch.nn.Parameter], lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix by its gradient."""
        for group in self.param_groups:
            for matrix in group["params"]:
                state = self.state[matrix]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(matrix)
                state["momentum"].lerp_(matrix.grad, 1 - group["momentum"])
                update = orthogonalise(matrix.grad.lerp(state["momentum"], group["momentum"]))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-group["lr"] * max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5)


def orthogonalise(matrix: torch.Tensor, iterations: int = 5) -> torch.Tensor:
    """An approximation of the nearest matrix with all singular values 1, by Muon's quintic Newton-Schulz iteration."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix.shape[0] > matrix.shape[1]
    result: torch.Tensor = matrix.T if tall else matrix
    result = result / (result.norm() + 1e-7)
    for _ in range(iterations):
        square = result @ result.T
        result = a * result + (b * square + c * square @ square) @ result
    return result.T if tall else result
