"""Whether a run's pages are those that this version would write again, so that `report` need not write them.

What they were made from is remembered in the user's cache by size and time of change, as `make` goes by: every file of
the run's folder, the pages among them, and every file of this package. The run's own hashes are checked all the same.
"""

from collections.abc import Iterator
from pathlib import Path

import cai_base
from cai_base.cache import recall, remember

_KIND = "reports"
_NOTHING = {"written": True}


def is_current(directory: Path, *, logs: bool) -> bool:
    """Whether nothing changed since `remember_written`.

    Args:
        logs: whether logs for Inspect are among what must have been written.
    """
    return recall(_KIND, _facts(directory, logs)) == _NOTHING


def remember_written(directory: Path, *, logs: bool) -> None:
    """Remember that the pages were written from the files as they are now."""
    remember(_KIND, _facts(directory, logs), _NOTHING)


def _facts(directory: Path, logs: bool) -> list[object]:
    package = Path(cai_base.__file__).parent
    return [str(directory.resolve()), logs, *_files(directory), *_files(package)]


def _files(folder: Path) -> Iterator[tuple[str, int, int]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            state = path.stat()
            yield str(path.relative_to(folder)), state.st_size, state.st_mtime_ns
