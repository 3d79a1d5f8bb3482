"""The values of a model's config.json whose kind and range are known whatever the architecture.

transformers takes nearly any value, and fails later in words of its own, or not at all.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from cai_base.engines import EngineError
from cai_base.engines.files import MODEL_CONFIG
from cai_base.engines.local.sizes import LAYERS, SIDES
from cai_base.reading import quote

GENERATION_CONFIG = "generation_config.json"
LARGEST = (1 << 31) - 1
"""The largest size, length or token that is taken: what a 32-bit number holds."""
COUNTS = (
    *LAYERS,
    *SIDES,
    *("num_attention_heads", "num_key_value_heads", "n_head", "head_dim"),
    *("max_position_embeddings", "n_positions", "original_max_position_embeddings"),
)
"""Fields that are whole numbers from 1 on, or a list of them with one for each layer."""
OTHER_TOKENS = ("bos_token_id", "pad_token_id")
"""Fields with a token that nothing here reads from the config; many files have -1 for none."""
POSITIVE = ("rope_theta", "rope_local_base_freq")
SMALL = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps")
SWITCHES = ("tie_word_embeddings", "attention_bias", "mlp_bias", "use_sliding_window")


def check_folder(folder: Path) -> None:
    """As `check`, of both files of a folder; what is not JSON is refused by transformers.

    Raises:
        EngineError: names the first field with a wrong value.
    """
    for name in (MODEL_CONFIG, GENERATION_CONFIG):
        try:
            settings = json.loads((folder / name).read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(settings, dict):
            check(str(folder), name, settings)


def check(name: str, file: str, settings: Mapping[str, object]) -> None:
    """Check the fields that are known, also those of the text model of a multimodal one.

    Args:
        name: of the model, as the user gave it.
        file: what has the settings.

    Raises:
        EngineError: names the first field with a wrong value.
    """
    inner = settings.get("text_config")
    for table in [settings, inner] if isinstance(inner, dict) else [settings]:
        for field, value in table.items():
            required = None if value is None else _required(field, value)
            if required is not None:
                reason = f"{file} has {field} = {quote(value)}; it must be {required}"
                raise EngineError("model", name, reason, "give a whole copy of the model, or correct the field")


def _required(field: str, value: object) -> str | None:
    """What a field must be, in words; None if it is that, or nothing is known of the field."""
    right, words = True, ""
    if field in COUNTS:
        right, words = all(_is_whole(one, 1) for one in _each(value)), f"a whole number, 1 to {LARGEST:,}"
    elif field == "eos_token_id":
        right, words = all(_is_whole(one, 0) for one in _each(value)), "the number of a token, from 0 on, or a list"
    elif field in OTHER_TOKENS:
        right, words = all(_is_whole(one, -1) for one in _each(value)), "the number of a token, or null"
    elif field in POSITIVE:
        right, words = _is_number(value) and float(str(value)) > 0, "a finite number above 0"
    elif field in SMALL:
        right, words = _is_number(value) and 0 <= float(str(value)) < 1, "a number from 0 to below 1"
    elif field in SWITCHES:
        right, words = isinstance(value, bool), "true or false"
    return None if right else words


def _each(value: object) -> Iterator[object]:
    """The members of a list, at least one, or the value itself."""
    yield from value if isinstance(value, list) and value else [value]


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= LARGEST


def _is_number(value: object) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) <= LARGEST**4
    return isinstance(value, float) and math.isfinite(value)
