"""The flow of every evaluation: an arm answers the items of a task, and each unit of answers is judged and stored.

A run's own evaluation (`own`), a suite and the styles (`evaluate`) all go through `ask`. Two works of `own` have
a judge read texts that are given or stored, and ask no arm: people's labelled answers, and pairs of arms' answers.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cai_base.evaluation.judges import Judge
from cai_base.evaluation.tasks import LoadedArm, Task
from cai_base.progress import Bar, Progress
from cai_base.reading import typed
from cai_base.records import Stored
from cai_base.settings import schema
from cai_base.store import Run, to_lines

BETWEEN_COUNTS = 0.5
"""Seconds between two counts of the answers that are being sampled."""


class AnswerCount:
    """Turns the tokens that an engine tells of into finished answers on a bar.

    Nothing says that an answer has ended. The answers of a batch grow together, so one that is shorter than the newest
    has ended, and a shorter newest one begins a batch. One that grows counts by its share of the longest answer.

    Args:
        answers: their number.
        longest: tokens of the longest possible answer.
    """

    def __init__(self, bar: Bar, answers: int, longest: int) -> None:
        self._bar, self._answers, self._longest = bar, answers, longest
        self._batch: dict[int, int] = {}
        self._complete, self._newest, self._tokens, self._on_bar = 0, 0, 0, 0
        self._start = self._counted = time.monotonic()

    def hear(self, number: int, tokens: Sequence[int]) -> None:
        """A token of an answer was drawn; these are its tokens so far."""
        if len(tokens) < self._newest:
            self._complete += len(self._batch)
            self._batch.clear()
        self._newest = len(tokens)
        self._tokens += len(tokens) - self._batch.get(number, 0)
        self._batch[number] = len(tokens)
        now = time.monotonic()
        if now - self._counted >= BETWEEN_COUNTS:
            self._counted = now
            grown = sum(1 if n < self._newest - 1 else n / self._longest for n in self._batch.values())
            self._show(min(int(self._complete + grown), self._answers - 1))

    def finish(self) -> None:
        """All answers are sampled and stored."""
        self._show(self._answers)

    def _show(self, answers: int) -> None:
        seconds = time.monotonic() - self._start
        speed = f"{self._tokens / seconds:,.0f} tokens/s" if self._tokens and seconds else ""
        self._bar.advance(max(0, answers - self._on_bar), speed)
        self._on_bar = max(answers, self._on_bar)


@dataclass(frozen=True, slots=True)
class Files:
    """The files for the answers of one seed and arm.

    Attributes:
        path: the file of one part of the answers, given seed, arm and part.
        parts: the names of the parts; by default there is one, without a name.
        part: the part to which an answer belongs.
    """

    path: Callable[[int, str, str], str]
    parts: tuple[str, ...] = ("",)
    part: Callable[[Any], str] = lambda answer: ""

    def names(self, arm: str, seeds: Sequence[int]) -> list[str]:
        """The files of an arm, of all parts and seeds."""
        return [self.path(seed, arm, part) for seed in seeds for part in self.parts]

    def contents(self, seed: int, arm: str, answers: Sequence[Stored]) -> dict[str, bytes]:
        """The content of every file for these answers; a part without answers is an empty file."""
        return {
            self.path(seed, arm, part): to_lines(one.dump() for one in answers if self.part(one) == part)
            for part in self.parts
        }


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A task, and where its answers are stored.

    Attributes:
        run: the directory with the answers.
        work: the name of an arm's work in the manifest.
    """

    task: Task[Any, Any]
    run: Run
    work: Callable[[str], str]
    files: Files

    @property
    def units(self) -> int:
        """The number of units of a finished arm."""
        return -(-len(self.task.items) // self.task.unit)

    def stored(self, arm: str, seeds: Sequence[int]) -> list[list[Any] | None]:
        """An arm's stored answers by seed; None for a seed that has none."""
        per_seed = []
        for seed in seeds:
            paths = [self.files.path(seed, arm, part) for part in self.files.parts]
            per_seed.append([one for path in paths for one in typed(self.task.record, self.run.lines(path), path)])
        return [answers or None for answers in per_seed]

    def done(self, arm: str, seeds: Sequence[int]) -> int:
        """The number of stored units of an arm; 0 if the stored answers are to other items."""
        units = self.run.progress(self.work(arm))
        items = self.task.items[: units * self.task.unit]
        stored = [answers for answers in self.stored(arm, seeds) if answers]
        same = all(len(items) == len(answers) and all(map(self.task.answers, items, answers)) for answers in stored)
        return units if same else 0


def ask(
    evaluation: Evaluation,
    arm: LoadedArm,
    settings: schema.Evaluation,
    judges: Mapping[str, Judge],
    progress: Progress,
    done: int = 0,
) -> None:
    """Have an arm answer all items of a task, for all seeds together, unit by unit, and store the answers.

    Args:
        judges: by the flag that names each; none for a task without a judge.
        done: the number of units that are already stored.
    """
    task, work, models = evaluation.task, evaluation.work(arm.name), len(arm.models)
    first = min(done * task.unit, len(task.items))
    with progress.bar(f"answers of {arm.name}", len(task.items) * models, first * models) as bar:
        for unit in range(done, evaluation.units):
            items = task.items[unit * task.unit : (unit + 1) * task.unit]
            contents: dict[str, bytes] = {}
            count = AnswerCount(bar, len(items) * models, settings.response_tokens)
            for seed, answers in task.answer(replace(arm, listener=count.hear), items, settings, judges).items():
                contents |= evaluation.files.contents(seed, arm.name, answers)
            if unit == 0:  # stored answers, if any, are to other items
                evaluation.run.commit(work, 1, write=contents)
            else:
                evaluation.run.commit(work, unit + 1, append=contents)
            count.finish()
