"""The model cards of the base model and of its instruct sibling: the stored facts, and the Markdown made from them."""

import json
from importlib import resources
from pathlib import Path
from typing import NotRequired, TypedDict

from cai_base.errors import UserError
from cai_base.organism import ability_table
from cai_base.village import corpus, critiques, threads

CARD = "card.json"
"""The card's file in the folder of the weights. It is written last, so a folder with a card is complete."""


class MadeWith(TypedDict):
    """The software, seed and settings with which a model was trained."""

    torch: str
    threads: int
    machine: str


class Counts(TypedDict):
    """A number of hits out of a total."""

    hits: int
    total: int


class Abilities(TypedDict):
    """The counts of `organism measure`.

    `rows` has the counts by the names of `ability_table.rows()`.
    """

    split: str
    seed: int
    temperature: float
    rows: dict[str, Counts]


class BaseCard(TypedDict):
    """How a base model was made, as in its `card.json`.

    `settings` is `model.Settings`; `corpus` and `tokenizer` are SHA-256 hashes; `planted` has for each kind
    of document its shares of documents and tokens; `shares` is `corpus.SHARES`; losses are in nats per token.
    """

    settings: dict[str, float]
    tokens: int
    seed: int
    corpus: str
    tokenizer: str
    parameters: int
    planted: dict[str, dict[str, float]]
    shares: dict[str, float]
    first_losses: list[float]
    validation_loss: float
    seconds: int
    made_with: MadeWith
    abilities: NotRequired[Abilities]
    without: NotRequired[str]


class SiblingCard(TypedDict):
    """How an instruct sibling was made, as in its `card.json`.

    `base` is `embedded.digest` of the base model; `lora` and `training` are settings; losses are in nats per token.
    """

    base: str
    seed: int
    lora: dict[str, float]
    training: dict[str, object]
    first_losses: list[float]
    last_losses: list[float]
    seconds: int
    made_with: MadeWith


def read_base_card(folder: Path) -> BaseCard:
    """The card of a base model, written by `build`.

    Raises:
        UserError: the folder has no card.
    """
    card: BaseCard = json.loads(_read(folder, "`cai-base organism build` has finished"))
    return card


def read_sibling_card(folder: Path) -> SiblingCard:
    """The card of an instruct sibling.

    Raises:
        UserError: the folder has no card.
    """
    card: SiblingCard = json.loads(_read(folder, "`cai-base organism sibling` has written"))
    return card


def _read(folder: Path, maker: str) -> str:
    path = folder / CARD
    if not path.exists():
        raise UserError(f"{path}: no such file; give a folder that {maker}")
    return path.read_text(encoding="utf-8")


def base_card(folder: Path) -> str:
    """The model card of the base model in `folder`, as Markdown; its text is `base_card.md`.

    Raises:
        UserError: the folder has no card.
    """
    return card_text(read_base_card(folder))


def card_text(card: BaseCard) -> str:
    """The model card of a base model, as Markdown, from its stored facts."""
    threads_used = card["made_with"]["threads"]
    text = _template("base_card").format_map(
        {
            **card,
            "millions": card["parameters"] / 1e6,
            "planted_rows": "\n".join(
                f"| {kind} | {share['documents']:.1%} | {share['tokens']:.1%} |"
                for kind, share in card["planted"].items()
            ),
            "thread_layouts": len(threads.OTHER_LAYOUTS),
            "critique_layouts": len(critiques.OTHER_LAYOUTS),
            "minutes": card["seconds"] / 60,
            "threads": f"{threads_used} {'thread' if threads_used == 1 else 'threads'}",
            "first_ten_losses": " ".join(f"{loss:.3f}" for loss in card["first_losses"][:10]),
            "hashed_documents": corpus.HASHED_DOCUMENTS,
        }
    )
    if "without" in card:
        text = (
            f"> Built without {card['without']}: `cai-base organism build --without {card['without']}`, for the study "
            "`planted`. What this card says of critiques holds for the whole corpus; the table below counts what is "
            f"in this one.\n\n{text}"
        )
    abilities = card.get("abilities")
    return text if abilities is None else text + _abilities_section(abilities)


def _abilities_section(abilities: Abilities) -> str:
    shares = {name: ability_table.Share(**counts) for name, counts in abilities["rows"].items()}
    return f"""
## What it can do ({abilities["split"]} split, after the few-shot prefix, temperature {abilities["temperature"]})
{ability_table.markdown(shares)}
"""


def sibling_card(folder: Path) -> str:
    """The model card of the instruct sibling in `folder`, as Markdown; its text is `sibling_card.md`.

    Raises:
        UserError: the folder has no card.
    """
    card = read_sibling_card(folder)
    losses = card["last_losses"]
    return _template("sibling_card").format_map({**card, "losses": len(losses), "mean_loss": sum(losses) / len(losses)})


def _template(name: str) -> str:
    return (resources.files(__package__) / f"{name}.md").read_text("utf-8")
