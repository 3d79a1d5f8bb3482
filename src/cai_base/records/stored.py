"""The base class of all records."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Stored(BaseModel):
    """The base class of records: immutable, without unknown fields, NaN or infinity.

    A field whose stored name differs from its Python name has the stored one as its alias, also when it is constructed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def dump(self) -> dict[str, Any]:
        """The record as JSON values, without the fields that were not set."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)
