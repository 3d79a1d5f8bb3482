"""The format of a run's `manifest.json`, which has the hash of every file of the run."""

import json
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from cai_base.reading import shortened

MANIFEST = "manifest.json"


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError(f"{shortened(json.dumps(name))} is not the path of a file inside the run")
    return name


class _Part(BaseModel):
    """A part of the manifest, read without conversions."""

    model_config = ConfigDict(extra="forbid", strict=True)


class StoredFile(_Part):
    """A file at its last commit.

    Attributes:
        appended: more may be appended: after its first `bytes` bytes it may have a tail that is not committed.
    """

    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    appended: bool


class Manifest(_Part):
    """`manifest.json`: the progress of each piece of work, and the files at that time.

    Attributes:
        version: the version of this format, under the key `schema`.
        config: the run's configuration at its start.
        progress: the number of committed units or steps, by piece of work.
        files: the files, by path relative to the run.
        usage: seconds by phase, of the work so far and of its forecast.
        records: the records of `record_on_commit` at the last commit, by name.
        accepted: for each changed file that the user accepted, by path, the entry of the file as the run stored it.
        environment: under `sessions`, for each process that worked on the run, the host, the date and the versions; no
            result depends on it.
    """

    version: Literal[1] = Field(alias="schema")
    config: dict[str, Any]
    progress: dict[str, Annotated[int, Field(ge=0)]]
    files: dict[Annotated[str, AfterValidator(_inside)], StoredFile]
    usage: dict[str, dict[str, float]]
    records: dict[str, dict[str, Any]] = Field({}, alias="found")
    accepted: dict[Annotated[str, AfterValidator(_inside)], StoredFile] = {}
    environment: dict[str, Any] = {}

    def dump(self) -> dict[str, Any]:
        """The stored form."""
        return self.model_dump(by_alias=True, exclude=None if self.accepted else {"accepted"})
