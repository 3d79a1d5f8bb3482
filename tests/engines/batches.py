"""Non-empty batches, losses and adapters for the engine's tests."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cai_base.engines import Adam, Batch, Datum, Loss, LossValue
from cai_base.engines.local import LocalEngine

WORDS = 300
"""Tokens drawn are below this and above the special ones."""


def tokens(generator: np.random.Generator, n: int) -> tuple[int, ...]:
    """`n` random tokens."""
    return tuple(generator.integers(2, WORDS, n).tolist())


def sequence(prompt: tuple[int, ...], response: tuple[int, ...], weight: float = 1.0) -> Datum:
    """Weight on the response alone."""
    return Datum((*prompt, *response), (*[0.0] * len(prompt), *[weight] * len(response)))


def pairs(seed: int, n: int, prefix: int = 20) -> list[Datum]:
    """`n` preference pairs behind one few-shot prefix: chosen, rejected, chosen, and so on; lengths vary."""
    generator = np.random.default_rng(seed)
    few_shot, out = tokens(generator, prefix), []
    for _ in range(n):
        prompt = few_shot + tokens(generator, int(generator.integers(2, 8)))
        out += [sequence(prompt, tokens(generator, int(generator.integers(1, 16)))) for _ in range(2)]
    return out


def dpo(reference: list[float], beta: float = 0.1) -> Loss:
    """Direct Preference Optimization (Rafailov et al., arXiv 2305.18290, equation 7) on the sums of `pairs`."""

    def loss(sums: Tensor) -> LossValue:
        rewards = beta * (sums - torch.tensor(reference)).view(-1, 2)
        margins = rewards[:, 0] - rewards[:, 1]
        metrics = {
            "rewards/chosen": rewards[:, 0].mean().item(),
            "rewards/rejected": rewards[:, 1].mean().item(),
            "rewards/margins": margins.mean().item(),
            "rewards/accuracies": (margins > 0).float().mean().item(),
        }
        return LossValue(-F.logsigmoid(margins).mean(), metrics)

    return loss


def nll(sums: Tensor) -> LossValue:
    """The mean negative log-probability of a sequence."""
    return LossValue(-sums.mean(), {})


def stir(engine: LocalEngine, *names: str, scale: float = 0.05) -> None:
    """Give adapters random matrices, B too, so that they differ from the base model and from each other."""
    for name in names:
        parameters = engine._bank.adapters[name].parameters
        generator = torch.Generator().manual_seed(sum(name.encode()))
        parameters += scale * torch.randn(parameters.shape, generator=generator)


def gradient(engine: LocalEngine, name: str) -> Tensor:
    """The gradient kept for an adapter."""
    kept = engine._bank.adapters[name].gradient
    assert kept is not None
    return kept


def parameters(engine: LocalEngine, name: str) -> Tensor:
    """A copy of an adapter's parameters."""
    return engine._bank.adapters[name].parameters.clone()


def train(engine: LocalEngine, batches: dict[str, list[list[Datum]]], adam: Adam) -> dict[str, list[float]]:
    """Steps of `nll`, each adapter over its own batches; the losses. An adapter whose batches are over stops."""
    losses: dict[str, list[float]] = {name: [] for name in batches}
    for step in range(max(map(len, batches.values()))):
        live = {name: Batch(mine[step], nll) for name, mine in batches.items() if step < len(mine)}
        for name, outcome in engine.forward_backward(live).result().items():
            losses[name].append(outcome.loss)  # type: ignore[union-attr]
        engine.optim_step(list(live), adam)
    return losses
