"""Types of single settings: the values that each accepts, and the message for anything else."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, JsonValue, PlainSerializer
from pydantic_core import CoreSchema, core_schema

from cai_base.text import distinct, split_names


@dataclass(frozen=True, slots=True)
class OneOf:
    """In `Annotated[str, OneOf(names)]`: the setting is one of these names, which a table defines."""

    names: Collection[str]

    def __get_pydantic_core_schema__(self, _: object, __: object) -> CoreSchema:
        return core_schema.literal_schema(list(self.names))


FOLDER: dict[str, JsonValue] = {"takes": "FOLDER"}
"""As a field's `json_schema_extra`: what `--help` says that the flag takes, where its type does not say it."""
DIRECTORY: dict[str, JsonValue] = {"takes": "DIR"}
FILE: dict[str, JsonValue] = {"takes": "FILE"}


Dtype = Literal["auto", "float32", "bfloat16"]
"""The precision in which a model in this process is computed."""


def _names(names: object) -> object:
    if names is None:  # stored by a run that had none
        return ()
    return split_names(names) if isinstance(names, str) else names


Names = Annotated[
    tuple[str, ...],
    BeforeValidator(_names),
    AfterValidator(distinct),
    PlainSerializer(lambda names: ",".join(names) or None, return_type=str | None),
]
"""Comma-separated names, on the command line and in files."""


def is_endpoint(url: str) -> bool:
    """Whether an HTTP library accepts the URL unchanged, and it cannot contain a key."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna")
        usable = url.isprintable() and " " not in url and parts.port != 0
    except ValueError:  # an invalid port, bracketed address or host name
        return False
    extra = parts.username or parts.password or parts.query or parts.fragment
    return usable and parts.scheme in ("http", "https") and bool(host) and not extra


class TokenPrices(str):
    """Dollars per million tokens read, sampled and trained on, as given: comma-separated."""

    read: float
    sampled: float
    trained: float

    @classmethod
    def __get_pydantic_core_schema__(cls, _: object, __: object) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls._parsed, core_schema.str_schema())

    @classmethod
    def _parsed(cls, text: str) -> "TokenPrices":
        prices = cls(text)
        try:
            prices.read, prices.sampled, prices.trained = (float(part) for part in text.split(","))
        except ValueError:  # not numbers, or not three
            prices.read = prices.sampled = prices.trained = -1.0
        if not all(0 <= dollars < float("inf") for dollars in (prices.read, prices.sampled, prices.trained)):
            raise ValueError("give dollars per million tokens read, sampled and trained on, such as 0.13,0.40,0.40")
        return prices
