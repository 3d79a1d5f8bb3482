"""Questions to a judge, its replies, and the file that stores every reply, so that no question is asked twice."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Protocol

from cai_base.engines import Message, Meter
from cai_base.errors import UserError
from cai_base.evaluation.judges import Response
from cai_base.evaluation.judges.grading import Grading
from cai_base.paths import replies
from cai_base.reading import check_file
from cai_base.store import refuse_links


@dataclass(frozen=True)
class Question:
    """One question to a judge: one vote on a response, by one way of grading."""

    model: str
    grading: Grading
    response: Response
    vote: int

    @cached_property
    def key(self) -> str:
        """Equal for equal questions."""
        style = self.response.style
        digest = self.grading.digest if style is None else f"{self.grading.digest} {style.about}"
        parts = [self.model, digest, self.response.prompt, *self.response.texts, self.vote]
        return sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation that the judge answers."""
        return self.grading.messages(self.response)


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply to a question.

    Attributes:
        text: the judge's text, or the message of an error.
        failure: why the text is no answer; None if it may be one.
        final: whether asking again would not help. After a broken connection, for example, it would.
    """

    text: str
    failure: str | None = None
    final: bool = True


JUDGES = ("judge", "second-judge")
"""The flags of judges, each with a file of replies."""
CHECK = 16
"""Digits of a line's check."""
_BEFORE, _AFTER = b'[{"key": "', b', "%s"]\n'
"""What stands in a line before its key, and after its record."""
_LENGTH = len(_AFTER % bytes(CHECK))

Keep = Callable[[Question, Reply], None]


def check_replies(directory: Path) -> None:
    """Compare every line of a run's or a suite's files of replies with its check. Nothing is changed.

    Raises:
        UserError: a complete line was changed.
    """
    for path in (directory / replies(flag) for flag in JUDGES):
        if path.exists():
            check_file(path, "a judge's replies", None)
            with path.open("rb") as file:
                for _ in _each(path, file):
                    pass


def _each(path: Path, file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """The key and the whole of each line, up to one that a crash left incomplete; UserError at one that was changed."""
    for number, line in enumerate(file, start=1):
        if not line.endswith(b"\n"):
            return
        key = _own_key(line) or _key(line)
        if key is None:
            raise UserError(f"{path}:{number}: differs from what was written; delete this line to ask again")
        yield key, line


class Source(Protocol):
    """A source of replies: an endpoint or a local model."""

    meter: Meter
    """The tokens processed by the judge's own engine."""

    def ask(self, questions: Sequence[Question], keep: Keep) -> None:
        """Ask every question, and pass on each reply as soon as it arrives.

        Raises:
            Stopped: the source no longer replies; the run can be resumed once that is mended.
        """
        ...


class ReplyFile:
    """Every final reply of a run's judge, one per line, flushed to disk before it is used.

    A line that a crash left incomplete is dropped, and its question is asked again. Of a million replies only the
    places are held in memory; a text is read when its question comes.

    Args:
        path: the file; None until the run has a directory, see `keep_in`.

    Raises:
        UserError: a complete line was changed, or the file is a link, through which another would be written.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._places: dict[bytes, int] = {}
        self._end = 0
        self._early: dict[str, tuple[Reply, bytes]] = {}
        if path is not None and path.exists():
            refuse_links(path)
            check_file(path, "a judge's replies", None)
            self._index(path)

    def _index(self, path: Path) -> None:
        """Check every line and note where it begins; cut off an incomplete one."""
        with path.open("r+b") as file:
            for key, line in _each(path, file):
                self._places[key] = self._end
                self._end += len(line)
            file.truncate(self._end)

    def get(self, question: Question) -> Reply | None:
        """The reply to an equal question, if there was one."""
        if question.key in self._early:
            return self._early[question.key][0]
        place = self._places.get(bytes.fromhex(question.key))
        if place is None or self._path is None:
            return None
        with self._path.open("rb") as file:
            file.seek(place)
            record, _ = json.loads(file.readline())
        text, failure = record.get("text"), record.get("failure", "")
        if not isinstance(text, str) or not isinstance(failure, str | None):
            raise UserError(f"{self._path}: the reply {question.key} is no reply; delete its line to ask again")
        return Reply(text, failure)

    def add(self, question: Question, reply: Reply) -> None:
        """Store a reply."""
        record = {
            "key": question.key,
            "rubric": question.grading.name,
            "vote": question.vote,
            "text": reply.text,
            "failure": reply.failure,
        }
        self._early[question.key] = reply, json.dumps([record, _check(record)]).encode() + b"\n"
        self._write()

    def keep_in(self, path: Path) -> None:
        """Store all replies, including those so far, in this new file."""
        self._path = path
        self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        refuse_links(self._path)
        with self._path.open("r+b" if self._path.exists() else "wb") as file:
            file.truncate(self._end)  # a write that failed, as on a full disk, may have left a part of a line
            file.seek(self._end)
            file.writelines(line for _, line in self._early.values())
            file.flush()
            os.fsync(file.fileno())
        for key, (_, line) in self._early.items():
            self._places[bytes.fromhex(key)] = self._end
            self._end += len(line)
        self._early.clear()


def _check(record: object) -> str:
    return sha256(json.dumps(record).encode()).hexdigest()[:CHECK]


def _own_key(line: bytes) -> bytes | None:
    """The key of a line that is byte for byte as it was written; None of another. Ten times as fast as `_key`."""
    record, after = line[1:-_LENGTH], line[-_LENGTH:]
    if not line.startswith(_BEFORE) or after != _AFTER % sha256(record).hexdigest()[:CHECK].encode():
        return None
    try:
        return bytes.fromhex(line[len(_BEFORE) : len(_BEFORE) + 64].decode())
    except ValueError:
        return None


def _key(line: bytes) -> bytes | None:
    """The key of a line with the record that was written, however it is laid out; None if it is another."""
    try:
        record, check = json.loads(line)
        return bytes.fromhex(record["key"]) if check == _check(record) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
