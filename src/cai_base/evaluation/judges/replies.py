"""Questions to a judge, its replies, and the file that stores every reply, so that no question is asked twice."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from cai_base.engines import Message, Meter
from cai_base.errors import UserError
from cai_base.evaluation.judges import Response
from cai_base.evaluation.judges.grading import Grading


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


Keep = Callable[[Question, Reply], None]


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

    A line that a crash left incomplete is dropped, and its question is asked again.

    Args:
        path: the file; None until the run has a directory, see `keep_in`.

    Raises:
        UserError: a complete line was changed.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._replies: dict[str, Reply] = {}
        self._unwritten: list[bytes] = []
        if path is not None and path.exists():
            content = path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if len(whole) < len(content):
                with path.open("r+b") as file:
                    file.truncate(len(whole))
            self._replies = dict(self._read(whole))

    def _read(self, content: bytes) -> Iterator[tuple[str, Reply]]:
        for number, line in enumerate(content.splitlines(), start=1):
            try:
                record, check = json.loads(line)
                intact = check == _check(record)
            except ValueError:
                intact = False
            if not intact:
                raise UserError(f"{self._path}:{number}: differs from what was written; delete this line to ask again")
            yield record["key"], Reply(record["text"], record["failure"])

    def get(self, question: Question) -> Reply | None:
        """The reply to an equal question, if there was one."""
        return self._replies.get(question.key)

    def add(self, question: Question, reply: Reply) -> None:
        """Store a reply."""
        record = {
            "key": question.key,
            "rubric": question.grading.name,
            "vote": question.vote,
            "text": reply.text,
            "failure": reply.failure,
        }
        self._unwritten.append(json.dumps([record, _check(record)]).encode() + b"\n")
        self._write()
        self._replies[question.key] = reply

    def keep_in(self, path: Path) -> None:
        """Store all replies, including those so far, in this new file."""
        self._path = path
        self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        with self._path.open("ab") as file:
            file.writelines(self._unwritten)
            file.flush()
            os.fsync(file.fileno())
        self._unwritten.clear()


def _check(record: object) -> str:
    return sha256(json.dumps(record).encode()).hexdigest()[:16]
