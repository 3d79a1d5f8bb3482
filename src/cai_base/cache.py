"""The user's cache: measurements and conversions of models that take long and give the same result every time.

Everything in it may be deleted at any time; it is then computed again.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

LARGE = 1 << 26
"""Bytes of a file from which its hash is remembered: a smaller one is read in less than a tenth of a second."""


def cache_folder() -> Path:
    """The folder of the cache: CAI_BASE_CACHE, or `cai-base` in the user's cache folder."""
    own = os.environ.get("CAI_BASE_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cai-base"


def recall(kind: str, facts: object) -> dict[str, Any] | None:
    """The cached record for these facts, which are everything it depends on; None if missing or damaged.

    Args:
        kind: a folder of the cache.
        facts: a value whose `repr` is equal for equal facts.
    """
    try:
        record = json.loads(_file(kind, facts).read_bytes())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def remember(kind: str, facts: object, record: Mapping[str, object]) -> None:
    """Store a record atomically. If the cache cannot be written, nothing is stored and no error is raised."""
    file = _file(kind, facts)
    part = file.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(record))
        part.replace(file)


def file_digest(path: Path) -> str:
    """The SHA-256 hash of a file. That of a large one is remembered, as long as the file is not touched.

    Raises:
        OSError: the file cannot be read.
    """
    state = path.stat()
    facts = (str(path.resolve()), state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)
    large = state.st_size >= LARGE
    stored = recall("digests", facts) if large else None
    if stored is not None and isinstance(stored.get("sha256"), str):
        return str(stored["sha256"])
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if large:
        remember("digests", facts, {"sha256": digest})
    return digest


def _file(kind: str, facts: object) -> Path:
    return cache_folder() / kind / f"{hashlib.sha256(repr(facts).encode()).hexdigest()}.json"
