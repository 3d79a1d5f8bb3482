"""The embedded base model: its files, and the ground truth of its world.

The embedded model is a model organism: a small Llama pretrained on a synthetic world in which harm is fictional and a
ground-truth judge is exact. It runs the whole pipeline, and studies of it, on a laptop. It is no evidence about large
models. Its instruct sibling, a LoRA adapter trained to follow instructions, is packaged too, for comparison.

Apart from `village` and `organism`, this is the only module that knows which world it is. To embed a model of another
world, change this module.
"""

import hashlib
import json
from pathlib import Path
from typing import Final, Literal

from cai_base.cache import cache_folder
from cai_base.errors import UserError
from cai_base.village import styles
from cai_base.village.corpus import WITHOUT
from cai_base.village.critique_reading import finds_harm
from cai_base.village.judge import Truth, UnknownQuestion, truth
from cai_base.village.language import is_gibberish, unknown_words, words_of

__all__ = [
    "DATA",
    "EMBEDDED",
    "VARIANTS",
    "Truth",
    "UnknownQuestion",
    "check_sibling",
    "data_file",
    "digest",
    "finds_harm",
    "follows_style",
    "is_embedded",
    "is_gibberish",
    "knows",
    "sibling",
    "style_marks",
    "style_requests",
    "truth",
    "unknown_words",
    "variant_folder",
    "weights",
    "words_of",
]

EMBEDDED = "organism"
"""The name of the embedded base model, as in `--model organism`."""

VARIANTS = {f"{EMBEDDED}:no-{what}": what for what in WITHOUT}
"""Models of the same world whose corpus lacks something, by their names in `--model`. They are recipes: their weights
are built on the user's machine and lie in the cache."""

Data = Literal["english", "world"]
"""The packaged data: prompts, examples and constitutions in real English, or about the embedded model's world."""
ENGLISH: Final = "english"
DATA: Final = "world"
"""The name of the packaged data about its world, as in `--data world`."""

_PACKAGE = Path(__file__).parent


def is_embedded(model: str) -> bool:
    """Whether a model lives in the embedded world: the shipped one, or a variant of it."""
    return model == EMBEDDED or model in VARIANTS


def variant_folder(model: str) -> Path:
    """Where the weights of a variant are built."""
    return cache_folder() / "organism" / VARIANTS[model]


def weights(model: str = EMBEDDED) -> Path:
    """The folder with the weights and the tokenizer, in Hugging Face layout: shipped, or a variant's in the cache.

    Raises:
        UserError: the variant is not built, or another model is in its place.
    """
    if model == EMBEDDED:
        return _PACKAGE / "organism" / "weights"
    folder = variant_folder(model)
    build = (
        f"build it once, which may take 80 minutes of one thread: cai-base organism build --without {VARIANTS[model]}"
    )
    if not (folder / "card.json").is_file():
        raise UserError(f"--model {model}: is not built on this machine (no finished build in {folder}); {build}")
    if _without(folder / "card.json") != VARIANTS[model]:
        raise UserError(f"--model {model}: {folder} has another model, by its card.json; move it away, and {build}")
    return folder


def _without(card: Path) -> object:
    """What the corpus of a build lacks, as its card says; None if nothing, or if it is no card."""
    try:
        content = json.loads(card.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content.get("without") if isinstance(content, dict) else None


def sibling() -> Path:
    """The folder with the shipped instruct sibling: PEFT adapter, tokenizer with chat template, card."""
    return _PACKAGE / "organism" / "sibling"


def data_file(name: str) -> Path:
    """A packaged file about the model's world, such as `test.jsonl` or `constitution.toml`."""
    return _PACKAGE / "data" / DATA / name


def digest(base: Path) -> str:
    """The SHA-256 hash of the weights and the tokenizer in a folder; a sibling's card has the hash of its base
    model."""
    sha256 = hashlib.sha256()
    for name in ("model.safetensors", "tokenizer.json"):
        sha256.update((base / name).read_bytes())
    return sha256.hexdigest()


def check_sibling(folder: Path, base: Path) -> None:
    """Check that the sibling in `folder` was trained on the weights in `base`.

    Raises:
        UserError: it was trained on other weights, or `folder` has no valid card of a sibling.
    """
    path = folder / "card.json"
    try:
        trained_on = json.loads(path.read_text(encoding="utf-8"))["base"]
    except (OSError, ValueError, KeyError):
        raise UserError(f"{path}: not the card of an instruct sibling; {_REMEDY}") from None
    if trained_on != digest(base):
        raise UserError(f"{path}: this instruct sibling was trained on other base weights than {base} has; {_REMEDY}")


_REMEDY = "make one with `cai-base organism sibling --out FOLDER`, and give it with --instruct FOLDER"


def knows(prompt: str) -> bool:
    """Whether a prompt asks about something that exists in the model's world."""
    try:
        truth(prompt, "-")
    except UnknownQuestion:
        return False
    return True


def style_requests(style: str) -> list[str]:
    """The sentences that request a style in the model's world, as in "Be a pirate."."""
    return styles.requests(style)


def style_marks(response: str, style: str) -> list[bool]:
    """For each surface mark of a style in the model's world, whether the response has it."""
    return styles.marks_present(response, style)


def follows_style(response: str, style: str) -> bool:
    """Whether a response follows a style of the model's world: the ground truth."""
    return styles.is_followed(response, style)
