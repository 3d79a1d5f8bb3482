"""Temporarily reduces a model to few layers, such that every kind of layer is among them, and to float32.

Whether packing is valid depends on the kinds of layers, not on their number. Checking it on two layers instead of
eighteen takes proportionally less time.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
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
    decoder.layers = layers[: max(LEAST, max(_first_of_kinds(model, layers)) + 1)]
    try:
        yield
    finally:
        decoder.layers = layers


@contextmanager
def one_of_each_kind(model: PreTrainedModel) -> Iterator[None]:
    """A context in which the states pass unchanged through every layer whose kind an earlier layer has.

    A layer keeps its index, by which models look up what else belongs to it. At least `LEAST` layers compute. A model
    is unchanged where its layers are not a list named `layers`, or return more than the states.
    """
    decoder = text_decoder(model)
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not _return_states(model, layers):
        yield
        return
    computing = _first_of_kinds(model, layers)
    computing |= set(range(LEAST)) if len(computing) < LEAST else set()
    decoder.layers = nn.ModuleList(one if i in computing else _Through(one) for i, one in enumerate(layers))
    try:
        yield
    finally:
        decoder.layers = layers


class _Through(nn.Module):
    """In the place of a layer: returns the states that it is given."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        for name, value in vars(layer).items():  # such as `attention_type`, for which a decoder asks its layers
            if not name.startswith("_") and isinstance(value, (bool, int, str)):
                setattr(self, name, value)

    def forward(self, hidden_states: Tensor, *_: object, **__: object) -> Tensor:
        """The states."""
        return hidden_states


def _return_states(model: PreTrainedModel, layers: nn.ModuleList) -> bool:
    """Whether every layer takes the states first and returns them alone, as two tokens show."""
    verdicts: list[bool] = []

    def look(_: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        verdicts.append(bool(inputs) and isinstance(inputs[0], Tensor) and isinstance(output, Tensor))

    hooks = [layer.register_forward_hook(look) for layer in layers]
    try:
        with torch.inference_mode():
            model.base_model(input_ids=torch.zeros(1, 2, dtype=torch.long, device=model.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return len(verdicts) == len(layers) and all(verdicts)


def _first_of_kinds(model: PreTrainedModel, layers: nn.ModuleList) -> set[int]:
    """The index of the first layer of each kind."""
    types = getattr(model.config.get_text_config(), "layer_types", None)
    kinds = [_kind(layer, i, types) for i, layer in enumerate(layers)]
    return {kinds.index(kind) for kind in set(kinds)}


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
    return types[place] if types and place < len(types) else None, tuple(modules)
