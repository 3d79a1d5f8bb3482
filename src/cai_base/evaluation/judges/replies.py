"""Questions to a judge, its replies, and the file that keeps every reply, so that no question is asked twice."""

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
    """One question to a judge: a response that is to be graded in one way, for the `vote`-th time."""

    model: str
    grading: Grading
    response: Response
    vote: int

    @cached_property
    def key(self) -> str:
        """Equal for equal questions."""
        style = self.response.style
        digest = self.grading.digest if style is None else f"{self.grading.digest} {style.about}"
        parts = [self.model, digest, self.response.prompt, self.response.text, self.vote]
        return sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation that the judge answers."""
        return self.grading.messages(self.response)


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply to a question.

    Attributes:
        text: the judge's words, whatever they are, or the error's.
        failure: why these are no answer to the question; None if they may be one.
        final: whether asking again is no use. A question that met a broken connection may be asked again.
    """

    text: str
    failure: str | None = None
    final: bool = True


Keep = Callable[[Question, Reply], None]


class Source(Protocol):
    """Where replies come from."""

    meter: Meter
    """The work of an engine of its own."""

    def ask(self, questions: Sequence[Question], keep: Keep) -> None:
        """Ask every question, and hand over each reply as soon as it is there.

        Raises:
            Stopped: nothing more will come, until something outside is put right.
        """
        ...


class ReplyFile:
    """Every final reply of a run's judge, one per line, written to disk before it counts.

    A line that was torn by a crash is dropped; the question is asked again.

    Args:
        path: the file; None until the run has a directory, see `keep_in`.

    Raises:
        UserError: a whole line is not what was written.
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
        """Keep a reply."""
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
        """Keep all replies, those so far included, in this new file from now on."""
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
