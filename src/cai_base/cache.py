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


def _file(kind: str, facts: object) -> Path:
    return cache_folder() / kind / f"{hashlib.sha256(repr(facts).encode()).hexdigest()}.json"
