"""Temporarily reduces a model to its first layers, as few as include every kind of layer, and to float32.

Whether packing is valid depends on the kinds of layers, not on their number. Checking it on six layers instead of
eighteen, or on two instead of thirty, takes proportionally less time.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

from cai_base.engines.local.model import text_decoder

LEAST = 2
"""The smallest number of layers to keep, so that a layer also reads the output of another layer."""
PLACE = "layer_idx"
"""The attribute of a layer with its index."""


@contextmanager
def every_kind_of_layer(model: PreTrainedModel) -> Iterator[None]:
    """A context in which the model has only its first layers, as few as include every kind.

    A model is unchanged if its layers are not a list named `layers` of the length in its config.
    """
    decoder = text_decoder(model)
    layers = getattr(decoder, "layers", None)
    config = model.config.get_text_config()
    if not isinstance(layers, nn.ModuleList) or len(layers) != config.num_hidden_layers:
        yield
        return
    kinds = [_kind(layer, i, getattr(config, "layer_types", None)) for i, layer in enumerate(layers)]
    last = max(kinds.index(kind) for kind in set(kinds))
    decoder.layers = layers[: max(LEAST, last + 1)]
    try:
        yield
    finally:
        decoder.layers = layers


@contextmanager
def in_float32(model: PreTrainedModel) -> Iterator[None]:
    """A context in which the model computes in float32, where rounding hides no difference.

    A quantized model, and one that does not fit the memory so, stays in its own precision.
    """
    quantized = getattr(model, "hf_quantizer", None) is not None
    tensors = [] if quantized else [one for one in (*model.parameters(), *model.buffers()) if one.is_floating_point()]
    stored = [one.data for one in tensors]

    def restore() -> None:
        for one, data in zip(tensors, stored, strict=True):
            one.data = data

    try:
        try:
            for one in tensors:
                one.data = one.data.float()
        except torch.OutOfMemoryError:
            restore()
        yield
    finally:
        restore()


def _kind(layer: nn.Module, place: int, types: list[str] | None) -> object:
    """The features that distinguish kinds of layers: the type in the config, the modules and their plain attributes."""
    modules = []
    for name, module in layer.named_modules():
        plain = {
            key: value
            for key, value in vars(module).items()
            if key != PLACE and not key.startswith("_") and isinstance(value, (bool, int, float, str, type(None)))
        }
        modules.append((name, type(module).__qualname__, tuple(sorted(plain.items(), key=lambda item: item[0]))))
    return types[place] if types else None, tuple(modules)
