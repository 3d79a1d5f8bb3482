"""Files of a run as bytes: atomic writes, JSON with equal bytes for equal values, hashes, and how two values differ."""

import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from cai_base.errors import UserError
from cai_base.reading import shortened

JsonObject = dict[str, Any]
"""A JSON object. The records of the method and the evaluation have types in `records`."""


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` atomically: at any time, `path` has either its old content or the complete new content.

    Raises:
        UserError: a link is where the new content is written first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = unfinished(path)
    file = open_to_append(new)
    if not _is_ours(file, new):  # another process writes the same file now, and is perhaps stopped
        file.close()
        new = path.with_name(f".{path.name}.{os.getpid()}.new")
        file = open_to_append(new)
    with file:
        file.truncate(0)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        try:
            new.replace(path)
        except OSError:  # a folder is in its place
            new.unlink()
            raise
    fsync(path.parent)


def open_to_append(path: Path) -> IO[bytes]:
    """Open a file of this project's own at its end; it is made if there is none. A link is not followed.

    A folder may be someone else's, and a link under a name that is written could lead to any file of the user's.

    Raises:
        UserError: the path is a link.
    """
    try:
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666), "ab")
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise UserError(f"{path}: is a link, and another file would be written through it; remove it") from None


def refuse_links(*paths: Path) -> None:
    """Refuse folders and files that are links, since what is written there would be written elsewhere.

    Raises:
        UserError: names the first link.
    """
    for path in paths:
        if path.is_symlink():
            raise UserError(f"{path}: is a link, and other files would be written through it; remove it")


def _is_ours(file: IO[bytes], path: Path) -> bool:
    """Whether this process alone has the open file, which still has this path. It is until the file is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def unfinished(path: Path) -> Path:
    """The file that a `write_atomic` of this path leaves behind if it is interrupted."""
    return path.with_name(f".{path.name}.new")


@contextmanager
def scratch(folder: Path, name: str) -> Iterator[Path]:
    """A new folder in `folder`, removed at the end; first those of this name that killed processes here left behind."""
    here = re.escape(platform.node())
    for left in folder.glob(f".{name}-*"):
        of_process = re.fullmatch(rf"\.{name}-{here}-(\d+)-[^-]+", left.name)
        if of_process and _has_ended(int(of_process[1])):
            shutil.rmtree(left)
    prefix = f".{name}-{platform.node()}-{os.getpid()}-"
    # A thread of a library may still write while an interrupted command cleans up: what is left, the next one removes.
    with TemporaryDirectory(prefix=prefix, dir=folder, ignore_cleanup_errors=True) as new:
        yield Path(new)


def _has_ended(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is another user's
        return False
    return False


def to_json(value: Any) -> bytes:
    """Readable JSON, with equal bytes for equal values. NaN raises an error."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def to_lines(records: Iterable[JsonObject]) -> bytes:
    """Records as JSON lines."""
    return "".join(json.dumps(r, ensure_ascii=False, allow_nan=False) + "\n" for r in records).encode()


def read_lines(path: Path) -> Iterator[JsonObject]:
    """The records of a JSON-lines file."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def sha256(path: Path, length: int) -> str:
    """SHA-256 of the first `length` bytes."""
    return digest_of(path, length).hexdigest()


def digest_of(path: Path, length: int) -> "hashlib._Hash":
    """SHA-256 of the first `length` bytes, to be continued with what is appended."""
    digest = hashlib.sha256()
    if length:
        with path.open("rb") as file:
            while length > 0 and (part := file.read(min(length, 1 << 20))):
                digest.update(part)
                length -= len(part)
    return digest


def fsync(path: Path) -> None:
    """Flush a file, or the entries of a directory, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def differences(was: Any, now: Any, field: str = "") -> Iterator[tuple[str, str, str]]:
    """Each leaf that differs between two JSON values: its dotted name, and both values."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in {**was, **now}:
            name = f"{field}.{key}" if field else key
            yield from differences(was.get(key, _ABSENT), now.get(key, _ABSENT), name)
    elif was != now:
        yield field, _in_words(was), _in_words(now)


def _in_words(value: Any) -> str:
    return "absent" if value is _ABSENT else shortened(json.dumps(value))


_ABSENT = object()
