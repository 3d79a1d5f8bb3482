"""Which files are read at all: regular ones, of a bounded size, and of a run's folder only what lies inside it.

A FIFO never ends, a device has no end, and a link can name any file of this machine. All are refused before they are
opened.
"""

import os
import stat
from pathlib import Path

from cai_base.errors import UserError

LARGEST = 1 << 28
"""Bytes of the largest file that is read whole."""
TEXTS = (".json", ".jsonl", ".jinja", ".txt", ".model")
"""Ends of the names of the files of a model that are read whole; weights are not."""
_KINDS = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def check_file(path: Path, description: str, most: int | None = LARGEST) -> None:
    """Check that a file can be read: it is there, a regular file, and not too large.

    Args:
        path: the file, or a link to it.
        description: of the expected file, for messages.
        most: the largest size in bytes; None for a file that is not read whole.

    Raises:
        UserError: it is missing, a directory, a FIFO, a socket or a device, or too large.
    """
    give = f"give the path of {description}"
    try:
        facts = path.stat()
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; {give}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); {give}") from None
    if stat.S_ISDIR(facts.st_mode):
        raise UserError(f"{path}: this is a directory; {give}")
    if not stat.S_ISREG(facts.st_mode):
        raise UserError(f"{path}: this is {_kind(facts.st_mode)} and no regular file; {give}")
    if most is not None and facts.st_size > most:
        raise UserError(f"{path}: has {facts.st_size:,} bytes and at most {most:,} are read; divide it, or {give}")


def check_model_files(folder: Path) -> None:
    """Check that all files in a model's or adapter's folder are regular, and that its texts are not too large.

    Raises:
        UserError: names the file.
    """
    for path in sorted(folder.iterdir()):
        if not path.is_dir():
            check_file(path, "a file of a model", LARGEST if path.suffix in TEXTS else None)


def check_inside(directory: Path, apart: str = "") -> None:
    """Check that a run's folder has nothing but folders, regular files, and links to them inside it.

    Another process may be writing it: what vanishes meanwhile is no fault.

    Args:
        apart: the name of a folder of other programs at the top of `directory`, which is not looked at.

    Raises:
        UserError: names the first other entry.
    """
    root, top = directory.resolve(), os.fspath(directory)
    folders = [top]
    while folders:
        folder = folders.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError:  # whoever reads a file of it says why that fails
            continue
        for entry in entries:
            if entry.is_symlink():
                _check_link(Path(entry.path), root)
            elif entry.is_dir(follow_symlinks=False):
                folders += [] if (folder, entry.name) == (top, apart) else [entry.path]
            elif not entry.is_file(follow_symlinks=False):
                _check_special(Path(entry.path))


def _check_link(path: Path, root: Path) -> None:
    try:
        target = path.resolve()
    except (OSError, RuntimeError):  # a link to itself
        raise UserError(f"{path}: is a link that leads nowhere; remove it") from None
    if not target.is_relative_to(root):
        raise UserError(f"{path}: is a link out of the run, to {target}; put a copy of the file in its place")


def _check_special(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    raise UserError(f"{path}: this is {_kind(mode)} and no regular file; remove it from the run")


def _kind(mode: int) -> str:
    return next((name for of, name in _KINDS if of(mode)), "no file of a known kind")
