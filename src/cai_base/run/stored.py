"""Reads what a run has stored, finished or not: the records of a file, and the answers of an arm."""

from cai_base import paths
from cai_base.inputs.kinds import ANSWER_FILES
from cai_base.reading import Model, typed
from cai_base.records import Answer
from cai_base.store import Run


def records_of(run: Run, name: str, kind: type[Model]) -> list[Model]:
    """The records of a stored file; none if the run has not stored it.

    Raises:
        UserError: a line is not such a record.
    """
    return typed(kind, run.lines(name), f"{run.directory / name}")


def answer_files(seed: int, arm: str, step: int | None = None) -> list[str]:
    """The files of an arm's answers; `step` for those during training."""
    return [paths.answers(seed, arm, file, step) for file in ANSWER_FILES]


def answers_of(run: Run, seed: int, arm: str, step: int | None = None) -> list[Answer]:
    """An arm's stored answers, at the end or at a training step; none if the seed failed before its evaluation.

    Raises:
        UserError: a line is not an answer.
    """
    return [answer for name in answer_files(seed, arm, step) for answer in records_of(run, name, Answer)]
