"""Where a command may write: checked before its work begins, which takes minutes or hours, and said in one sentence.

A name that the system does not take, a place below a file, a link that leads nowhere, a folder without the right to
write: each would else be an error of the file system at the end.
"""

import os
import stat
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path

from cai_base.errors import UserError
from cai_base.store.manifest import MANIFEST
from cai_base.text import resume_command

WRITABLE = "give a writable location"
MOST_NAMES = 8
"""The number of runs that a message about a misspelt one names."""


def refuse_existing(directory: Path) -> None:
    """Raise UserError if there is something at `directory`, or no folder can be made there."""
    if _facts(directory, "--out") is None:
        _check_parent(directory, "--out")
        return
    more = f", or continue it: {resume_command(directory)}" if (directory / MANIFEST).is_file() else ""
    raise UserError(f"--out {directory}: already exists; give a new directory{more}")


def refuse_no_run(directory: Path) -> None:
    """Raise UserError if there is no run at `directory`, nor anything else with a manifest."""
    try:
        there = (directory / MANIFEST).exists()
    except ValueError:  # a NUL in the name
        there = False
    if not there:
        refuse_misspelt(directory)
        why = f"it has no {MANIFEST}" if directory.is_dir() else "there is no such folder"
        raise UserError(f"{directory}: not a run ({why}); give a directory that `run` made")


def refuse_misspelt(directory: Path) -> None:
    """Raise UserError if there is nothing at `directory`, but there are runs beside it, which it names."""
    try:
        beside = [] if directory.exists() else sorted(one.parent.name for one in directory.parent.glob(f"*/{MANIFEST}"))
    except (ValueError, OSError):  # no path, such as one with a NUL
        beside = []
    if beside:
        more = f" and {len(beside) - MOST_NAMES} more" if len(beside) > MOST_NAMES else ""
        near = get_close_matches(directory.name, beside, MOST_NAMES, 0.0)[:MOST_NAMES]
        raise UserError(f"{directory}: there is no such run; {directory.parent} has {', '.join(near)}{more}")


def check_folder_to_write(directory: Path, flag: str = "--out") -> None:
    """Raise UserError if what is at `directory` is no folder that can be written to, and if none can be made there."""
    if _facts(directory, flag) is None:
        _check_parent(directory, flag)
    elif not directory.is_dir():
        raise UserError(f"{flag} {directory}: this is no folder; give a folder, or a new name for one")
    elif not os.access(directory, os.W_OK | os.X_OK):
        raise UserError(f"{flag} {directory}: cannot be written to; {WRITABLE}")


def make_folder(directory: Path, flag: str = "--out") -> None:
    """Make a folder, unless it is there; raises UserError as `check_folder_to_write`."""
    check_folder_to_write(directory, flag)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refusal(directory, flag, error.strerror) from error


def refuse_others(directory: Path, own: Collection[str], what: str) -> None:
    """Raise UserError if a folder holds other files than those of `what`, some of which would be replaced."""
    others = sorted(path.name for path in directory.iterdir() if path.name not in own and path.name[0] != ".")
    if others:
        raise UserError(f"--out {directory}: holds {others[0]}, which is not of {what}; give a new folder")


def check_new_file(path: Path, flag: str) -> None:
    """Check that a file can be written at `path`, in a folder that is there. A regular file is replaced.

    Raises:
        UserError: something else is there (a folder, a link, a FIFO, a device), or no file can be made there.
    """
    facts = _facts(path, flag)
    if facts is not None and not stat.S_ISREG(facts.st_mode):
        raise UserError(f"{flag} {path}: this is no regular file, so it is not replaced; give a new file")
    if not path.parent.is_dir():
        raise UserError(f"{flag} {path}: there is no folder {path.parent}; give a file in a folder that exists")
    _check_parent(path, flag)


def _facts(path: Path, flag: str) -> os.stat_result | None:
    """What is at a path, links not followed; None if nothing is."""
    try:
        os.fsencode(path).decode()
    except UnicodeDecodeError:
        raise _refusal(path, flag, "its name is no UTF-8") from None
    try:
        return path.lstat()
    except FileNotFoundError:
        return None
    except ValueError:
        raise _refusal(path, flag, "its name has a NUL") from None
    except OSError as error:
        raise _refusal(path, flag, error.strerror) from None


def _check_parent(path: Path, flag: str) -> None:
    """Check that what is missing of a path can be made: in a folder, with the right to write, and with short names."""
    path = path.absolute()
    parent = next(folder for folder in path.parents if folder.exists())
    if not parent.is_dir():
        raise _refusal(path, flag, f"{parent} is no folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise _refusal(path, flag, f"{parent} cannot be written to")
    longest = os.pathconf(parent, "PC_NAME_MAX")
    if any(len(os.fsencode(name)) > longest for name in path.relative_to(parent).parts):
        raise _refusal(path, flag, f"a name may have {longest} bytes")


def _refusal(path: Path, flag: str, reason: str | None) -> UserError:
    return UserError(f"{flag} {path}: cannot be created ({reason}); {WRITABLE}")
