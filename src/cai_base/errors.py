"""Expected early exits of a command, and their exit codes."""

import errno
import re
from pathlib import Path

NO_SPACE = ("no space left on device", "disk quota exceeded")
NO_MEMORY = (
    *("can't allocate memory", "cannot allocate memory", "out of memory", "std::bad_alloc", "not enough memory"),
    *("threadpoolbuilderror", "can't start new thread"),  # a thread's stack
    *("failed to map segment from shared object", "cannot map zero-fill pages"),  # a library that is loaded
)
"""What libraries say where they raise errors of a type of their own."""
FORBIDDEN = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY),
    *(errno.ELOOP, errno.ENAMETOOLONG),
)
"""Errors of the file system about what somebody put at a path, or about rights to it."""
LONGEST_WORD = 500
"""Characters without a space, such as a path; a longer one in a message is a value from a damaged file, and is cut."""


def install(extra: str) -> str:
    """How to install an extra of the package: from a registry, and from a clone."""
    return f"pip install 'cai-base[{extra}]', or '.[{extra}]' in a clone"


class UserError(Exception):
    """The user's input is wrong. The message names the file, line or field, what is wrong, and what would be right.

    A command ends with exit code 2.
    """

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(re.sub(rf"\S{{{LONGEST_WORD},}}", lambda word: f"{word[0][:100]}...{word[0][-50:]}", message))


class ChangedFileError(UserError):
    """A file of a run differs from what the run stored.

    Args:
        directory: the run's, or that of an evaluation inside it.
        name: the file's path in it.
        remedy: what would be right.
    """

    def __init__(self, directory: Path, name: str, remedy: str) -> None:
        super().__init__(f"{directory / name}: differs from what this run stored; {remedy}")
        self.directory, self.name = directory, name


class Stopped(Exception):
    """The run stopped, and `resume` continues it. The message says why. A command ends with exit code 3."""

    exit_code = 3


def exhausted(error: BaseException) -> str | None:
    """What the machine ran out of, in words, if that is what an error is about: disk or memory."""
    text = str(error).casefold()
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or any(words in text for words in NO_SPACE):
        file = getattr(error, "filename", None)
        return f"no space is left on the disk{f' for {file}' if file else ''}: make room"
    forbidden = "not permitted" in text  # a library on a disk from which nothing may be executed
    if isinstance(error, MemoryError) or (any(words in text for words in NO_MEMORY) and not forbidden):
        return "the memory is exhausted: end other programs, or take a machine with more"
    return None


def forbidden(error: BaseException) -> str | None:
    """What the file system does not allow, in words, if that is what an error is about."""
    if not isinstance(error, OSError) or error.errno not in FORBIDDEN or error.filename is None:
        return None
    return (
        f"{error.filename2 or error.filename}: cannot be read or written ({error.strerror}); remove what is in its "
        "place, or give this user the right to it, then give the same command again"
    )
