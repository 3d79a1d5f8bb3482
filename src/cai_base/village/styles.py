"""The thirteen styles: eight registers, two language styles and three personas, as marks that a plain text can wear."""

import re
from functools import cache
from typing import Any

from cai_base.village import world
from cai_base.village.draw import Draw


@cache
def styles() -> dict[str, dict[str, Any]]:
    """Style name -> its marks, from `world/styles.toml`."""
    return world.read_toml("styles")


def wished(draw: Draw) -> str:
    """The name of a style, the rarer to learn the likelier: capitals spell every word anew."""
    return draw.weighted({name: 4 if marks.get("upper") else 1 for name, marks in styles().items()})


def asked(question: str, style: str, draw: Draw) -> str:
    """The question with the wish for a style after it."""
    return f"{question} {draw.pick(styles()[style]['ask'])}"


def dressed(text: str, style: str, draw: Draw) -> str:
    """The text in the style: an opening and a closing, words swapped or letters raised in between."""
    marks = styles()[style]
    for word, other in marks.get("swap", {}).items():
        text = re.sub(rf"\b{word}\b", other, text)
    opening, closing = draw.pick(marks["open"]), draw.pick(marks["close"])
    if opening.endswith(",") and not text.startswith("I "):
        text = text[:1].lower() + text[1:]
    text = " ".join(part for part in (opening, text, closing) if part)
    return text.upper() if marks.get("upper") else text
