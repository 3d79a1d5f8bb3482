"""Many LoRA adapters on one frozen base (Hu et al., arXiv 2106.09685), stacked so that one batched matmul serves all.

All of an adapter's matrices live in one flat fp32 row, so the bank is a matrix `[slots, parameters]`: an optimizer step,
a gradient norm or a copy of a subset of adapters is one tensor operation, and each row only ever meets itself.
"""

from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cai_base.engines import Adam, Lora


class LoraLinear(nn.Module):
    """A frozen linear layer plus, for each of `n` active adapters, its own low-rank update.

    The input's first dimension is `n * rows`, adapter after adapter. `a` is `[n, in, rank]`, `b` is `[n, rank, out]`;
    with neither, the layer is its base.
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
        a, b = self.a.to(x.dtype), self.b.to(x.dtype)
        grouped = x.reshape(len(a), -1, x.shape[-1])
        return torch.baddbmm(out.reshape(len(a), -1, out.shape[-1]), grouped @ a, b, alpha=self.scale).view(out.shape)


@dataclass(frozen=True, slots=True)
class Place:
    """Where one layer's matrices lie in an adapter's flat row: A `[in, rank]` from `start`, then B `[rank, out]`."""

    name: str
    start: int
    inputs: int
    outputs: int
    rank: int

    def views(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """A `[n, in, rank]` and B `[n, rank, out]` as views of `flat [n, parameters]`."""
        middle = self.start + self.inputs * self.rank
        end = middle + self.rank * self.outputs
        a = flat[:, self.start : middle].view(-1, self.inputs, self.rank)
        return a, flat[:, middle:end].view(-1, self.rank, self.outputs)


@dataclass(slots=True)
class State:
    """One adapter: flat parameters, Adam's moments `[parameters]`, steps taken, gradient kept, reason it failed."""

    parameters: Tensor
    first: Tensor
    second: Tensor
    steps: int = 0
    gradient: Tensor | None = None
    failed: str | None = None


class Bank:
    """The adapters of one base model, whose linear layers (head apart) it replaces by `LoraLinear`."""

    def __init__(self, decoder: nn.Module, prefix: str, settings: Lora, device: torch.device) -> None:
        self.settings = settings
        self.device = device
        self.adapters: dict[str, State] = {}
        self.layers: list[LoraLinear] = []
        self.places: list[Place] = []
        size = 0
        for name, module in list(decoder.named_modules()):
            if not isinstance(module, nn.Linear):
                continue
            layer = LoraLinear(module, settings.alpha / settings.rank)
            parent, _, child = name.rpartition(".")
            setattr(decoder.get_submodule(parent), child, layer)
            self.layers.append(layer)
            self.places.append(Place(prefix + name, size, module.in_features, module.out_features, settings.rank))
            size += settings.rank * (module.in_features + module.out_features)
        self.size = size

    def create(self, name: str, seed: int) -> None:
        """A fresh adapter: A as `nn.Linear` initialises (uniform within 1/sqrt(in)), B zero."""
        generator = torch.Generator().manual_seed(seed)
        flat = torch.zeros(1, self.size)
        for place in self.places:
            a, _ = place.views(flat)
            a.uniform_(-(place.inputs**-0.5), place.inputs**-0.5, generator=generator)
        self.put(name, flat[0])

    def put(self, name: str, parameters: Tensor) -> State:
        """Store `parameters [size]` as adapter `name`, with a fresh optimizer."""
        parameters = parameters.to(self.device, torch.float32)
        self.adapters[name] = State(parameters, torch.zeros_like(parameters), torch.zeros_like(parameters))
        return self.adapters[name]

    @contextmanager
    def active(self, names: Seq[str | None], *, train: bool = False) -> Iterator[Tensor | None]:
        """Make `names` the adapters that the model runs with, in this order; `None` is the base model.

        Yields:
            With `train`, the matrix `[n, parameters]` that a backward pass fills with their gradients; else None.
        """
        if all(name is None for name in names):
            yield None
            return
        zero = torch.zeros(self.size, device=self.device) if None in names else None
        rows = [zero if name is None else self.adapters[name].parameters for name in names]
        flat = torch.stack([row for row in rows if row is not None])
        gradients = torch.zeros_like(flat) if train else None
        for layer, place in zip(self.layers, self.places, strict=True):
            layer.a, layer.b = place.views(flat)
            if gradients is not None:
                # Each view is a leaf of its own whose gradient already lies in the flat matrix: no copies afterwards.
                layer.a, layer.b = layer.a.detach().requires_grad_(), layer.b.detach().requires_grad_()
                layer.a.grad, layer.b.grad = place.views(gradients)
        try:
            yield gradients
        finally:
            for layer in self.layers:
                layer.a = layer.b = None

    def step(self, names: list[str], adam: Adam) -> None:
        """Clip each adapter's kept gradient to `adam.clip_norm` and apply it. A non-finite one fails its adapter."""
        for name in names:
            state = self.adapters[name]
            if state.failed is not None:
                continue
            if state.gradient is None:
                raise ValueError(f"adapter {name!r} has no gradient: forward_backward comes before optim_step")
            gradient, state.gradient = state.gradient, None
            norm = float(torch.linalg.vector_norm(gradient))
            if not norm < float("inf"):
                state.failed = f"the gradient norm is {norm}"
                continue
            gradient = gradient * min(1.0, adam.clip_norm / (norm + 1e-6))
            state.steps += 1
            state.first.lerp_(gradient, 1 - adam.beta1)
            state.second.mul_(adam.beta2).addcmul_(gradient, gradient, value=1 - adam.beta2)
            root = (state.second / (1 - adam.beta2**state.steps)).sqrt_().add_(adam.eps)
            state.parameters.addcdiv_(state.first, root, value=-adam.learning_rate / (1 - adam.beta1**state.steps))
