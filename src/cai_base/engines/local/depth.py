"""A model cut down, for a while, to the first layers that have every kind of layer it has.

Whether packing is valid depends on how a layer attends, not on how many such layers there are. Checking it on six
layers in place of eighteen, or on two in place of thirty, takes that part of the time.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from transformers import PreTrainedModel

from cai_base.engines.local.model import text_decoder

LEAST = 2
"""Layers that are left of any model: what a layer makes of another one's output counts, too."""
PLACE = "layer_idx"
"""The attribute of a layer that says where it stands."""


@contextmanager
def every_kind_of_layer(model: PreTrainedModel) -> Iterator[None]:
    """Within it the model has its first layers alone, as few as have every kind.

    A model whose layers are not a list named `layers`, as long as its config says, stays whole.
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


def _kind(layer: nn.Module, place: int, types: list[str] | None) -> object:
    """What tells a layer from others: its type in the config, its modules and their plain attributes."""
    modules = []
    for name, module in layer.named_modules():
        plain = {
            key: value
            for key, value in vars(module).items()
            if key != PLACE and not key.startswith("_") and isinstance(value, (bool, int, float, str, type(None)))
        }
        modules.append((name, type(module).__qualname__, tuple(sorted(plain.items(), key=lambda item: item[0]))))
    return types[place] if types else None, tuple(modules)
