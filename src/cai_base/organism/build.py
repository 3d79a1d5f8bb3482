"""Builds the embedded base model: corpus, tokenizer, pretraining and card, resumable after an interruption.

The written folder loads with `AutoTokenizer` and `AutoModelForCausalLM`. Its `card.json` records how the model
was made, and `README.md` describes it.
"""

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict

import torch

from cai_base.engines.weight_files import save_model
from cai_base.errors import UserError
from cai_base.organism import pretraining
from cai_base.organism.cards import CARD, BaseCard, card_text
from cai_base.organism.model import Settings
from cai_base.organism.optimizers import steps_per_part
from cai_base.organism.training_data import corpus_hash, stored_rows, stored_tokenizer
from cai_base.progress import Progress
from cai_base.reading import described, parse_json, quote, read_text
from cai_base.store import check_folder_to_write, make_folder, refuse_others, write_atomic
from cai_base.village import corpus

SHIPPED_TOKENS = 7_500_000
"""The number of tokens on which the shipped weights were pretrained."""
LOSSES_ON_CARD = 50
"""The number of losses on the model card, from the first; a slow test repeats this many steps and compares."""


class Plan(TypedDict):
    """Everything that determines the weights of a build, as in `work/plan.json`."""

    settings: dict[str, float]
    tokens: int
    seed: int
    without: corpus.Without | None
    corpus: str


def build(
    out: Path,
    *,
    tokens: int | None = None,
    seed: int,
    progress: Progress,
    settings: Settings | None = None,
    without: corpus.Without | None = None,
) -> None:
    """Pretrain the base model and write weights, tokenizer, card and README to `out`.

    After an interruption, the same call continues from the last checkpoint and gives the same result.

    Args:
        out: the folder to write. `out/work` keeps rows and checkpoint; the caller may delete it afterwards.
        tokens: the number of training tokens, each used once, including padding; `SHIPPED_TOKENS` by default.
        seed: the seed of the corpus and the initial weights.
        progress: shows the progress bar.
        settings: the model and its training; those of the shipped model by default.
        without: what the corpus lacks, for the study `planted`; None for the whole corpus.

    Raises:
        UserError: `out` cannot be written, or `out/work` belongs to a build with other arguments.
    """
    settings = settings or Settings()
    tokens = tokens or SHIPPED_TOKENS
    plan: Plan = {
        "settings": asdict(settings),
        "tokens": tokens,
        "seed": seed,
        "without": without,
        "corpus": corpus_hash(seed, without),
    }
    work = out / "work"
    _claim(work, plan)
    tokenizer = stored_tokenizer(work, seed, settings)
    data = stored_rows(work, tokenizer, tokens, seed, settings, without)
    model, history = pretraining.train(work, data.rows, steps_per_part(tokens, settings), seed, settings, progress)
    card: BaseCard = {
        "settings": plan["settings"],
        "tokens": plan["tokens"],
        "seed": plan["seed"],
        "corpus": plan["corpus"],
        "tokenizer": hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "planted": data.shares_by_kind,
        "shares": corpus.SHARES,
        "first_losses": history.loss[:LOSSES_ON_CARD],
        "validation_loss": pretraining.validation_loss(model, data.validation, settings),
        "seconds": round(sum(history.seconds)),
        "made_with": {"torch": torch.__version__, "threads": torch.get_num_threads(), "machine": platform.machine()},
    }
    if without is not None:
        card["without"] = without
    (out / CARD).unlink(missing_ok=True)  # written last: a folder with a card is complete
    tokenizer.save_pretrained(out)
    save_model(model.bfloat16(), out)
    write_atomic(out / "README.md", card_text(card).encode())
    write_atomic(out / CARD, json.dumps(card, indent=1).encode())


def _stored_plan(path: Path) -> Mapping[str, object]:
    """The plan of an existing build.

    Raises:
        UserError: it cannot be read, or is not a JSON object.
    """
    remedy = f"restore it, or delete {path.parent} and build from the beginning"
    try:
        stored = parse_json(path, read_text(path, "the plan of a build"))
    except UserError as error:
        raise UserError(f"{error}; {remedy}") from None
    if not isinstance(stored, dict):
        raise UserError(f"{path}: is {described(stored)} and no JSON object; {remedy}")
    return stored


def _claim(work: Path, plan: Plan) -> None:
    """Create the work folder of a new build, or check that an existing one belongs to the same build.

    Raises:
        UserError: the folder cannot be created, has other files, or a field of its plan differs.
    """
    check_folder_to_write(work.parent)
    path = work / "plan.json"
    if not path.exists():
        make_folder(work.parent)
        if not (work.parent / CARD).exists():
            refuse_others(work.parent, (work.name,), "a build")
        write_atomic(path, json.dumps(plan).encode())
        return
    stored = _stored_plan(path)
    for field, value in plan.items():
        if stored.get(field) != value:
            raise UserError(
                f"{path}: belongs to a build whose {field} is {quote(stored.get(field))}, and here it is {value}; "
                "choose another folder"
            )
