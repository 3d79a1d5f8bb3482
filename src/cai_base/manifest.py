"""The form of a run's `manifest.json`, which vouches for every file of the run."""

import json
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from cai_base.reading import shortened


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError(f"{shortened(json.dumps(name))} is not the path of a file inside the run")
    return name


class _Part(BaseModel):
    """A part of the manifest, read without conversions."""

    model_config = ConfigDict(extra="forbid", strict=True)


class StoredFile(_Part):
    """What one file held when it was last committed. Behind the first `bytes` of an appended file a tail may follow."""

    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    appended: bool


class Manifest(_Part):
    """`manifest.json`: how far each piece of work is, and what every file held then.

    Attributes:
        version: of this form, under the key `schema`.
        config: the configuration the run began with.
        progress: committed units, or steps, by piece of work.
        files: by path, relative to the run.
        usage: seconds by phase.
        records: what `record_on_commit` recorded at the last commit, by name.
        accepted: by path, what the run itself stored of a file that was changed later and that the user takes as it is.
        environment: where, when and by what the run was made, under `sessions` an entry for each process that worked
            on it; no result depends on it.
    """

    version: Literal[1] = Field(alias="schema")
    config: dict[str, Any]
    progress: dict[str, Annotated[int, Field(ge=0)]]
    files: dict[Annotated[str, AfterValidator(_inside)], StoredFile]
    usage: dict[str, Any]
    records: dict[str, dict[str, Any]] = Field({}, alias="found")
    accepted: dict[Annotated[str, AfterValidator(_inside)], StoredFile] = {}
    environment: dict[str, Any] = {}

    def dump(self) -> dict[str, Any]:
        """As it is stored."""
        return self.model_dump(by_alias=True, exclude=None if self.accepted else {"accepted"})
