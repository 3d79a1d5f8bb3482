"""The thirteen styles: eight registers, two language styles and three personas.

A style of the village is defined by its marks: an opening, a closing, for the dialect some other words, for shouting
capitals. So it can be applied to any text and detected exactly. Marks and requests are in `world/styles.toml`.
"""

import re
from functools import cache
from typing import Any

from cai_base.village import world
from cai_base.village.draw import Draw

CAPITALS_WEIGHT = 4
"""How much more often the corpus has the style in capitals than any other style: its tokens are unlike those of other
text: with an equal share it was followed 60 % of the time, with four times the share 95 % (docs/LOG.md)."""


@cache
def styles() -> dict[str, dict[str, Any]]:
    """Each style's marks and requests, by its name."""
    return world.read_toml("styles")


def draw_style(draw: Draw) -> str:
    """The name of a style, for a document of the corpus."""
    return draw.pick_weighted({name: CAPITALS_WEIGHT if marks.get("upper") else 1 for name, marks in styles().items()})


def requests(style: str) -> list[str]:
    """The sentences that request the style, as in "Be a pirate."."""
    return list(styles()[style]["ask"])


def with_request(question: str, style: str, draw: Draw) -> str:
    """The question with a request for the style after it."""
    return f"{question} {draw.pick(styles()[style]['ask'])}"


def apply(text: str, style: str, draw: Draw) -> str:
    """The text in the style: with an opening and a closing, words replaced, or in capitals."""
    marks = styles()[style]
    for word, other in marks.get("swap", {}).items():
        text = re.sub(rf"\b{word}\b", other, text)
    opening, closing = draw.pick(marks["open"]), draw.pick(marks["close"])
    if opening.endswith(",") and not text.startswith("I "):
        text = text[:1].lower() + text[1:]
    text = " ".join(part for part in (opening, text, closing) if part)
    return text.upper() if marks.get("upper") else text


def marks_present(text: str, style: str) -> list[bool]:
    """For each mark of the style, whether the text has it.

    The marks are the opening and the closing; of the dialect also that more of its words occur than of the words that
    they replace. Shouting has one mark, that all letters are capitals.
    """
    marks = styles()[style]
    if marks.get("upper"):
        return [text.isupper()]
    present = _opens_and_closes(text, marks)
    if "swap" in marks:
        words, swap = re.findall(r"[a-z']+", text.strip().lower()), marks["swap"]
        present.append(sum(word in swap.values() for word in words) > sum(word in swap for word in words))
    return present


def is_followed(text: str, style: str) -> bool:
    """Whether the text follows the style: one of the openings or closings suffices; for shouting, it is in capitals."""
    marks = styles()[style]
    return text.isupper() if marks.get("upper") else any(_opens_and_closes(text, marks))


def _opens_and_closes(text: str, marks: dict[str, Any]) -> list[bool]:
    """Whether the text begins with one of the openings, and whether it ends with one of the closings."""
    text = text.strip().lower()
    return [
        text.startswith(tuple(mark.lower() for mark in marks["open"])),
        text.endswith(tuple(mark.lower() for mark in marks["close"])),
    ]
