"""The user's cache: what takes long to find out about a model, or to convert, and is the same every time.

Everything in it may be deleted at any time, and is then made again.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


def cache_folder() -> Path:
    """Where this user's caches are: CAI_BASE_CACHE, or `cai-base` in the system's folder for them."""
    own = os.environ.get("CAI_BASE_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cai-base"


def recall(kind: str, facts: object) -> dict[str, Any] | None:
    """What was remembered under these facts, all that it depends on; None if nothing was, or not whole.

    Args:
        kind: a folder of the cache.
        facts: of a form whose `repr` is equal for equal facts.
    """
    try:
        record = json.loads(_file(kind, facts).read_bytes())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def remember(kind: str, facts: object, record: Mapping[str, object]) -> None:
    """Store a record, whole or not at all. A cache that cannot be written costs time, nothing else."""
    file = _file(kind, facts)
    part = file.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(record))
        part.replace(file)


def _file(kind: str, facts: object) -> Path:
    return cache_folder() / kind / f"{hashlib.sha256(repr(facts).encode()).hexdigest()}.json"
