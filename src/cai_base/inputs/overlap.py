"""Whether two sets of texts overlap: texts are the same where they have the same words."""

import hashlib
import unicodedata
from collections.abc import Mapping
from typing import TypeVar

First = TypeVar("First")
Second = TypeVar("Second")


def normalised_hash(text: str) -> str:
    """SHA-256 of the text's words: case, punctuation, spacing and Unicode form do not count.

    Signs that carry meaning (`C` and `C#`, `5 * 3` and `5 / 3`) do, and text that is nothing but punctuation keeps it.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    words = "".join(_normalised(character) for character in folded).split()
    return hashlib.sha256(" ".join(words or folded.split()).encode(errors="surrogatepass")).hexdigest()


def overlap(first: Mapping[First, str], second: Mapping[Second, str]) -> list[tuple[First, Second]]:
    """The keys of every pair of texts, one of each set, with the same words: none for sets that may train and test."""
    seen: dict[str, list[Second]] = {}
    for key, text in second.items():
        seen.setdefault(normalised_hash(text), []).append(key)
    return [(key, other) for key, text in first.items() for other in seen.get(normalised_hash(text), [])]


def _normalised(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cf":  # soft hyphens, zero-width spaces: invisible, and left over from web pages
        return ""
    # Combining marks stay: without them different words of Hindi or Thai would become one.
    return character if category[0] in "LMNS" or character in "#%&*/@" else " "
