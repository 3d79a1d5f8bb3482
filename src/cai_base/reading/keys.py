"""Reads `.env`, the user's file of keys. No message about it shows a value: that may be a key."""

from collections.abc import Mapping
from io import StringIO
from pathlib import Path

from dotenv import dotenv_values

from cai_base.errors import UserError
from cai_base.reading.regular import check_file

ENV = Path(".env")
"""In the working directory, as `.env.example` shows it."""
DESCRIPTION = "a file of keys, with lines KEY=value"
MOST = 1 << 20
"""Bytes of the largest such file."""


def stored_keys(path: Path = ENV) -> Mapping[str, str | None]:
    """The variables in a file of keys; none if there is no file, or a folder of this name.

    Raises:
        UserError: it is no regular file, too large, unreadable, not UTF-8, or has a NUL; names file and line.
    """
    if not path.exists() or path.is_dir():
        return {}
    check_file(path, DESCRIPTION, MOST)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); it should be {DESCRIPTION}") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not UTF-8 text (byte 0x{data[error.start]:02x}); save it as UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"{path}:{line}: has the character NUL, which no variable can hold; write the line again")
    return dotenv_values(stream=StringIO(text))
