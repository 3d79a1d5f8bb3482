"""Sizes in a model's settings that its files cannot hold: refused before anything of that size is made.

transformers makes every layer that a config names before it looks into the files, be it ten million of them.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

from cai_base.engines import EngineError
from cai_base.engines.files import MODEL_CONFIG

LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "block_count")
WIDTHS = ("hidden_size", "n_embd", "d_model", "dim", "embedding_length")
SIDES = (*WIDTHS, "intermediate_size", "n_inner", "ffn_dim", "d_ff", "feed_forward_length", "vocab_size")
"""The fields whose product with a width is the size of a matrix, as architectures and GGUF name them."""
LEAST_BITS = 0.5
"""Bits that a weight takes in a file at least: no quantization has fewer."""
HEADER = 1 << 27
"""Bytes of the longest header of a safetensors file; the library's own limit is 100 MB."""


def check(name: str, file: str, settings: Mapping[str, object], tensors: int, size: int) -> None:
    """Check that so many tensors and bytes can be the weights of a model of these settings.

    Args:
        name: of the model, as the user gave it.
        file: what has the settings.

    Raises:
        EngineError: they cannot.
    """
    layers = _largest(settings, LAYERS)
    if layers is not None and layers[1] > tensors:
        reason = f"{file} has {layers[0]} = {layers[1]:,}, and its files have {tensors:,} tensors"
        raise EngineError("model", name, reason, "give a whole copy of the model")
    most, width = int(size * 8 / LEAST_BITS), _largest(settings, WIDTHS)
    side = _largest(settings, SIDES)
    if width is not None and side is not None and width[1] * side[1] > most:
        reason = f"{file} has {width[0]} = {width[1]:,} and {side[0]} = {side[1]:,}: more weights than its files hold"
        raise EngineError("model", name, reason, "give a whole copy of the model")


def check_folder(folder: Path) -> None:
    """As `check`, of a folder in Hugging Face layout; what cannot be read here is refused by transformers.

    Raises:
        EngineError: its files cannot hold the weights that its config asks for.
    """
    file, weights = folder / MODEL_CONFIG, sorted(folder.glob("*.safetensors"))
    try:
        config = json.loads(file.read_bytes())
        tensors = sum(_tensors(path) for path in weights)
    except (OSError, ValueError, RecursionError):
        return
    size = sum(path.stat().st_size for path in weights)
    for settings in (config, config.get("text_config") if isinstance(config, dict) else None):
        if isinstance(settings, dict):
            check(str(folder), file.name, settings, tensors, size)


def _largest(settings: Mapping[str, object], fields: tuple[str, ...]) -> tuple[str, int] | None:
    """The field of these with the largest whole number, and the number."""
    values = ((field, settings.get(field)) for field in fields)
    numbers = [(field, value) for field, value in values if isinstance(value, int) and not isinstance(value, bool)]
    return max(numbers, key=lambda pair: pair[1], default=None)


def _tensors(path: Path) -> int:
    """How many tensors a safetensors file names in its header; ValueError if it has none."""
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else HEADER
        if length >= HEADER:
            raise ValueError
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError
    return len(header)
