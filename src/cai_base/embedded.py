"""The embedded base model: a model organism.

A small Llama pretrained on a synthetic village world in which harm is fictional and a ground-truth judge is exact. It
proves the pipeline and makes studies runnable on a laptop; it is not evidence about large models. Beside it lies its
instruct sibling: a LoRA adapter that learned to follow instructions, for comparison.
"""

import hashlib
import json
from pathlib import Path

from cai_base.errors import UserError
from cai_base.village import judge, styles

__all__ = ["EMBEDDED", "PACK", "check_sibling", "digest", "judge", "sibling", "styles", "weights"]

EMBEDDED = "organism"
"""The name of the embedded base model, a model organism."""
PACK = "world"
"""The packaged inputs in its language."""


def weights() -> Path:
    """The folder with the shipped weights and tokenizer, in Hugging Face layout."""
    return Path(__file__).parent / "organism" / "weights"


def sibling() -> Path:
    """The folder with the shipped instruct sibling: PEFT adapter, tokenizer with chat template, card."""
    return Path(__file__).parent / "organism" / "sibling"


def digest(base: Path) -> str:
    """A hash of the weights and tokenizer in a folder: what a sibling was trained on."""
    found = hashlib.sha256()
    for name in ("model.safetensors", "tokenizer.json"):
        found.update((base / name).read_bytes())
    return found.hexdigest()


def check_sibling(folder: Path, base: Path) -> None:
    """Raises UserError if the sibling in `folder` was trained on other weights than those in `base`."""
    path = folder / "card.json"
    try:
        trained_on = json.loads(path.read_text(encoding="utf-8"))["base"]
    except (OSError, ValueError, KeyError):
        raise UserError(f"{path}: not the card of an instruct sibling; {_REMEDY}") from None
    if trained_on != digest(base):
        raise UserError(f"{path}: this instruct sibling was trained on other base weights than {base} has; {_REMEDY}")


_REMEDY = "make one with `cai-base organism sibling --out FOLDER`, and give it with --instruct FOLDER"
