"""Whether a run's pages are up to date, so that `report` need not write them again.

The user's cache has the size and modification time of everything they depend on, as `make` uses: every file of the
run's folder, including the pages, and every file of this package. The run's hashes are still checked.
"""

from collections.abc import Iterator
from pathlib import Path

import cai_base
from cai_base.cache import recall, remember

_KIND = "reports"
_NOTHING = {"written": True}


def is_current(directory: Path, *, logs: bool) -> bool:
    """Whether no file has changed since `remember_written`.

    Args:
        logs: whether logs for Inspect must have been written too.
    """
    return recall(_KIND, _facts(directory, logs)) == _NOTHING


def remember_written(directory: Path, *, logs: bool) -> None:
    """Record that the pages were written from the current files."""
    remember(_KIND, _facts(directory, logs), _NOTHING)


def _facts(directory: Path, logs: bool) -> list[object]:
    package = Path(cai_base.__file__).parent
    return [str(directory.resolve()), logs, *_files(directory), *_files(package)]


def _files(folder: Path) -> Iterator[tuple[str, int, int]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            state = path.stat()
            yield str(path.relative_to(folder)), state.st_size, state.st_mtime_ns
