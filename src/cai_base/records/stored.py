"""The base class of all records."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Stored(BaseModel):
    """A record: immutable, no unknown fields, no not-a-number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def dump(self) -> dict[str, Any]:
        """The record as JSON values, without the fields that were not set."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)
