"""Many LoRA adapters on one frozen base (Hu et al., arXiv 2106.09685), stacked so that one batched matmul serves all.

All matrices of an adapter are views of one flat fp32 vector. A gradient norm, an optimizer step or a copy is therefore
one tensor operation, and stacking the vectors of several adapters stacks all their matrices.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cai_base.engines import Adam, Lora
from cai_base.engines.errors import Adapters


class LoraLinear(nn.Module):
    """A frozen linear layer plus, for each of `n` active adapters, its own low-rank update.

    The input's first dimension is `n * rows`, adapter after adapter. `a` is `[n, in, rank]`, `b` is `[n, rank, out]`;
    without them, the layer is just its base.
    """

    def __init__(self, base: nn.Linear, scale: float) -> None:
        super().__init__()
        self.base = base
        self.scale = scale
        self.a: Tensor | None = None
        self.b: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x)
        if self.a is None or self.b is None:
            return out
        n = len(self.a)
        low = x.reshape(n, -1, x.shape[-1]) @ self.a
        return torch.baddbmm(out.view(n, -1, out.shape[-1]), low, self.b, alpha=self.scale).view(out.shape)


@dataclass(frozen=True, slots=True)
class Place:
    """The shape of one layer's matrices. The flat vector holds A `[in, rank]` first, then B `[rank, out]`."""

    name: str
    inputs: int
    outputs: int
    rank: int

    @property
    def sizes(self) -> tuple[int, int]:
        """The number of elements of A, and of B."""
        return self.inputs * self.rank, self.rank * self.outputs


@dataclass(slots=True)
class State:
    """One adapter: parameters and Adam moments `[parameters]`, steps taken, summed gradient, why it failed (or
    None)."""

    parameters: Tensor
    first: Tensor
    second: Tensor
    steps: int = 0
    gradient: Tensor | None = None
    failed: str | None = None


LEAST_SHARE = 0.5
"""Of a decoder's weights that have an adapter: a model below has a note."""


def share_note(decoder: nn.Module, embedding: nn.Module) -> tuple[str, ...]:
    """A note if few of a decoder's weights are in linear layers, as where its experts are stored as one tensor.

    Args:
        decoder: the model without its head.
        embedding: its table of embeddings, which is not counted.
    """
    linear = [module for module in decoder.modules() if isinstance(module, nn.Linear)]
    table = {id(weight) for weight in embedding.parameters()}
    weights = sum(weight.numel() for weight in decoder.parameters() if id(weight) not in table)
    share = sum(module.weight.numel() for module in linear) / weights
    if share >= LEAST_SHARE:
        return ()
    return (
        f"LoRA adapts the linear layers, {share:.0%} of the decoder's weights (embeddings apart); the others, "
        "such as experts stored as one tensor, are not trained",
    )


class Bank:
    """The adapters of one base model, whose linear layers (except the head) are replaced by `LoraLinear`.

    Args:
        decoder: the model without its head.
        prefix: the decoder's name within the model with a dot, such as `model.`, or empty.
        settings: shape of the adapters.
    """

    def __init__(self, decoder: nn.Module, prefix: str, settings: Lora) -> None:
        self.settings = settings
        self.adapters: Adapters[State] = Adapters()
        self.layers: list[LoraLinear] = []
        self.places: list[Place] = []
        weight = next(decoder.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        for name, module in list(decoder.named_modules()):
            if isinstance(module, nn.Linear):
                layer = LoraLinear(module, settings.alpha / settings.rank)
                parent, _, child = name.rpartition(".")
                setattr(decoder.get_submodule(parent), child, layer)
                self.layers.append(layer)
                self.places.append(Place(prefix + name, module.in_features, module.out_features, settings.rank))
        self.size = sum(sum(place.sizes) for place in self.places)

    def create(self, name: str, seed: int) -> None:
        """A fresh adapter: A as `nn.Linear` initialises (uniform within 1/sqrt(in)), B zero."""
        generator = torch.Generator().manual_seed(seed)
        flat = torch.zeros(self.size)
        for place, (a, _) in zip(self.places, views(self.places, flat[None]), strict=True):
            a.uniform_(-(place.inputs**-0.5), place.inputs**-0.5, generator=generator)
        self.put(name, flat)

    def put(self, name: str, parameters: Tensor) -> State:
        """Store `parameters [size]` as adapter `name`, with a fresh optimizer."""
        parameters = parameters.to(self.device, torch.float32)
        self.adapters[name] = State(parameters, torch.zeros_like(parameters), torch.zeros_like(parameters))
        return self.adapters[name]

    @contextmanager
    def active(self, names: Sequence[str | None], *, train: bool = False) -> Iterator[Tensor]:
        """Make `names` the active adapters of the model, in this order; `None` is the base model.

        Yields:
            Their parameters `[n, parameters]`; with `train` they require gradients.
        """
        if all(name is None for name in names):
            yield torch.empty(0)
            return
        zero = torch.zeros(self.size, device=self.device) if None in names else None
        flat = torch.stack([self.adapters[name].parameters if name is not None else zero for name in names])  # type: ignore[misc]
        flat.requires_grad_(train)
        for layer, (a, b) in zip(self.layers, views(self.places, flat.to(self.dtype)), strict=True):
            layer.a, layer.b = a, b
        try:
            yield flat
        finally:
            for layer in self.layers:
                layer.a = layer.b = None

    def accumulate(self, name: str, loss: float, gradient: Tensor) -> str | None:
        """Add `gradient [parameters]` to the adapter's sum; mark the adapter as failed if it or `loss` is not finite.

        Returns:
            Why the adapter failed, if it did.
        """
        state = self.adapters[name]
        norm = torch.linalg.vector_norm(gradient).item()
        if not math.isfinite(loss):
            state.failed = f"the loss is {loss}"
        elif not math.isfinite(norm):
            state.failed = f"the norm of the gradient is {norm}"
        else:
            state.gradient = gradient if state.gradient is None else state.gradient + gradient
        return state.failed

    def step(self, name: str, adam: Adam) -> str | None:
        """Clip the adapter's summed gradient to `adam.clip_norm`, apply one Adam step and clear the gradient.

        An adapter that failed earlier is left unchanged.

        Returns:
            Why the adapter failed in this step, if it did.
        """
        state = self.adapters[name]
        if state.failed is not None:
            return None
        if state.gradient is None:
            raise ValueError(f"adapter {name!r} has no gradient: forward_backward comes before optim_step")
        gradient, state.gradient = state.gradient, None
        gradient = gradient * (adam.clip_norm / (torch.linalg.vector_norm(gradient) + 1e-6)).clamp(max=1)
        state.steps += 1
        state.first.lerp_(gradient, 1 - adam.beta1)
        state.second.mul_(adam.beta2).addcmul_(gradient, gradient, value=1 - adam.beta2)
        root = (state.second / (1 - adam.beta2**state.steps)).sqrt_().add_(adam.eps)
        state.parameters.addcdiv_(state.first, root, value=-adam.learning_rate / (1 - adam.beta1**state.steps))
        if not state.parameters.isfinite().all():
            state.failed = f"its weights were no longer finite after update {state.steps}"
        return state.failed


def views(places: Sequence[Place], flat: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Each layer's A `[n, in, rank]` and B `[n, rank, out]` as views of `flat [n, parameters]`.

    A single split is used for all of them, because its backward pass assembles all gradients in one copy.
    """
    parts = iter(torch.split(flat, [size for place in places for size in place.sizes], dim=1))
    n = len(flat)
    return [
        (next(parts).view(n, place.inputs, place.rank), next(parts).view(n, place.rank, place.outputs))
        for place in places
    ]
