"""The overlap of two sets of texts; texts with the same words count as equal."""

import hashlib
import unicodedata
from collections.abc import Mapping
from typing import TypeVar

First = TypeVar("First")
Second = TypeVar("Second")


def normalised_hash(text: str) -> str:
    """SHA-256 of a text's words, regardless of case, punctuation, spacing and Unicode form.

    Signs that carry meaning (`C` and `C#`, `5 * 3` and `5 / 3`) are kept, as is a text that is only punctuation.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    words = "".join(_normalised(character) for character in folded).split()
    return hashlib.sha256(" ".join(words or folded.split()).encode(errors="surrogatepass")).hexdigest()


def overlap(first: Mapping[First, str], second: Mapping[Second, str]) -> list[tuple[First, Second]]:
    """The keys of every pair of texts, one from each set, with the same words. Training and test sets must have
    none."""
    seen: dict[str, list[Second]] = {}
    for key, text in second.items():
        seen.setdefault(normalised_hash(text), []).append(key)
    return [(key, other) for key, text in first.items() for other in seen.get(normalised_hash(text), [])]


def _normalised(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cf":  # invisible characters that web pages leave in texts: soft hyphens, zero-width spaces
        return ""
    # Combining marks stay: without them different words of Hindi or Thai would become one.
    return character if category[0] in "LMNS" or character in "#%&*/@" else " "
