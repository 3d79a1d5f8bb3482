"""CUDA graphs of the decoder: one launch in place of thousands.

A pass over a thousand tokens keeps a GPU busy for tens of milliseconds, and Python for hundreds: what one adapter
learns in a step waits for launches. A graph records the launches of a forward and a backward pass over one shape, and
replays them. Lengths are rounded up, so that few shapes come up; a shape is recorded when it comes up again.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from cai_base.engines.local.lora import Bank, views

MULTIPLE = 256
"""Lengths are rounded up to a multiple of it."""
MOST_TOKENS = 4096
"""Tokens of a pass from which a GPU is busy for longer than its launches take."""
MOST_GRAPHS = 12
"""Each keeps the inputs and outputs of its shape."""

Decoder = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""From tokens, positions, mask and the adapters' parameters to the last hidden states."""


class Graphs:
    """The decoder of one model on CUDA, recorded for the shapes that come up more than once.

    Args:
        model: frozen, its linear layers in the bank.
        bank: the adapters.
    """

    def __init__(self, model: PreTrainedModel, bank: Bank) -> None:
        self._model, self._bank = model, bank
        self._seen: Counter[tuple[int, ...]] = Counter()
        self._recorded: dict[tuple[int, ...], Decoder] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self.failure: str | None = None
        """Why nothing is recorded any more, if recording failed."""

    def length(self, rows: int, length: int) -> int:
        """What the length of a pass is rounded up to; a pass that keeps the GPU busy stays as it is."""
        rounded = -(-length // MULTIPLE) * MULTIPLE
        return rounded if self.failure is None and rows * rounded <= MOST_TOKENS else length

    def hidden(self, inputs: dict[str, Any], parameters: Tensor) -> Tensor | None:
        """The decoder's last hidden states `[rows, length, features]`, from a recording; None if there is none.

        Args:
            inputs: see `forward.model_inputs`.
            parameters: of the active adapters `[n, parameters]`, the leaf of autograd's graph. The next recorded pass
                overwrites their gradient: copy it.
        """
        mask = inputs["attention_mask"]
        rows, length = inputs["input_ids"].shape
        if self.failure is not None or not isinstance(mask, Tensor) or rows * length > MOST_TOKENS:
            return None
        tensors = (inputs["input_ids"], inputs["position_ids"], mask, parameters)
        shape = (len(parameters), rows, length)
        if shape not in self._recorded:
            self._seen[shape] += 1
            if self._seen[shape] < 2 or len(self._recorded) == MOST_GRAPHS:
                return None
            try:
                self._recorded[shape] = self._record(tensors)
            except RuntimeError as error:  # a model whose forward pass waits for the GPU cannot be recorded
                self.failure = str(error)
                return None
        return self._recorded[shape](*tensors)

    def _record(self, tensors: tuple[Tensor, Tensor, Tensor, Tensor]) -> Decoder:
        def decode(tokens: Tensor, positions: Tensor, mask: Tensor, parameters: Tensor) -> Tensor:
            cast = parameters.to(self._bank.dtype)
            for layer, (a, b) in zip(self._bank.layers, views(self._bank.places, cast), strict=True):
                layer.a, layer.b = a, b
            out: Tensor = self._model.base_model(
                input_ids=tokens, position_ids=positions, attention_mask=mask, use_cache=False
            )[0]
            return out

        sample = tuple(one.detach().clone() for one in tensors)
        sample[-1].requires_grad_()
        active = [(layer.a, layer.b) for layer in self._bank.layers]
        try:
            recorded: Decoder = torch.cuda.make_graphed_callables(decode, sample, pool=self._pool)  # type: ignore[assignment]
        finally:
            for layer, (a, b) in zip(self._bank.layers, active, strict=True):
                layer.a, layer.b = a, b
        return recorded


@dataclass(frozen=True, slots=True)
class Recorded:
    """The recordings with the parameters of the adapters that are active; without, lengths alone are as in training.

    So a reference is computed on the shapes that are trained, and the margin before the first update is exactly 0.
    """

    graphs: Graphs
    parameters: Tensor | None

    def length(self, rows: int, length: int) -> int:
        """See `Graphs.length`."""
        return self.graphs.length(rows, length)

    def hidden(self, inputs: dict[str, Any]) -> Tensor | None:
        """See `Graphs.hidden`."""
        return None if self.parameters is None else self.graphs.hidden(inputs, self.parameters)
