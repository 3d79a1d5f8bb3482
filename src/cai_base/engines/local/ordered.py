"""Frozen weights in the order in which oneDNN multiplies them, for drawing responses on a CPU.

A step of decoding multiplies a few rows by every weight. PyTorch's product of fp32 matrices takes the weights as they
lie; oneDNN's takes a copy whose order suits the processor, as PyTorch's compiler has it for models that are not
trained. For 24 rows and a vocabulary of 262,144 that takes 0.6 of the time.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from cai_base.engines.local import large_head
from cai_base.engines.local.model import text_decoder

MOST = 2 << 30
"""Bytes of copies at most; of a model with more, the head alone, or nothing."""
ROWS = 24
"""For how many rows the order is chosen; it serves any number."""


class OrderedWeights:
    """The copies of one model's weights, made when they are first used, and kept as long as the model.

    Only models whose head is large (`large_head.takes`) have them, in fp32 on a CPU. Whether a weight has a copy
    depends on the model alone, so that no response depends on what was drawn before.

    Args:
        model: frozen.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._layers = _chosen(model)
        self._copies: list[Tensor] = []

    @property
    def size(self) -> int:
        """Bytes of the copies, made or not."""
        return sum(one.weight.nbytes for one in self._layers)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Within it the linear layers multiply by their copies; they have no gradient. One caller at a time."""
        if len(self._copies) < len(self._layers):
            self._copies = [torch.ops.mkldnn._reorder_linear_weight(one.weight.detach(), ROWS) for one in self._layers]
        for layer, copy in zip(self._layers, self._copies, strict=True):
            layer.forward = _Product(layer, copy)  # type: ignore[assignment]
        try:
            yield
        finally:
            for layer in self._layers:
                vars(layer).pop("forward", None)


class _Product:
    """What a linear layer computes, from the copy of its weights."""

    def __init__(self, layer: nn.Linear, copy: Tensor) -> None:
        self._bias, self._copy = layer.bias, copy

    def __call__(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._copy, self._bias, "none", [], "")
        return out


def _chosen(model: PreTrainedModel) -> list[nn.Linear]:
    """The layers that have copies: of the text decoder and the head, none of an encoder for images."""
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    # The two operations are PyTorch's own, but not public: without them its plain product is taken.
    has_operations = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")  # type: ignore[no-untyped-call]
    if not (has_operations and large_head.takes(head) and _can_be_copied(head)):
        return []
    inside = [one for one in text_decoder(model).modules() if type(one) is nn.Linear and _can_be_copied(one)]
    every = [*(one for one in inside if one is not head), head]
    return next((layers for layers in (every, [head]) if sum(one.weight.nbytes for one in layers) <= MOST), [])


def _can_be_copied(layer: nn.Linear) -> bool:
    weight, whole = layer.weight, (torch.float32, "cpu")
    return (weight.dtype, weight.device.type) == whole and weight.numel() > 0 and not weight.requires_grad
