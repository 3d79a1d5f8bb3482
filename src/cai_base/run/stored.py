"""Reads what a run has stored, finished or not: the records of a file, and the answers of an arm."""

import fcntl
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cai_base import paths
from cai_base.engines.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from cai_base.errors import UserError
from cai_base.inputs.kinds import ANSWER_FILES
from cai_base.inputs.prompts import Prompt
from cai_base.reading import Model, quote, typed
from cai_base.records import Answer
from cai_base.store import MANIFEST, Run
from cai_base.text import command_on, resume_command


def check_finished(run: Run) -> None:
    """Check that a run has its results.

    Raises:
        UserError: it has none yet; the message says whether a process is working on it.
    """
    if run.progress("results"):
        return
    if is_locked(run.directory):
        raise UserError(
            f"{run.directory}: is not finished, and another process is working on it; wait for it, or look at it with: "
            f"{command_on('watch', run.directory)}"
        )
    raise UserError(f"{run.directory}: is not finished; finish it first: {resume_command(run.directory)}")


def is_locked(directory: Path) -> bool:
    """Whether a process holds the run's lock; it is released when the process ends."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def records_of(run: Run, name: str, kind: type[Model]) -> list[Model]:
    """The records of a stored file; none if the run has not stored it.

    Raises:
        UserError: a line is not such a record.
    """
    return list(each_record(run, name, kind))


def each_record(run: Run, name: str, kind: type[Model]) -> Iterator[Model]:
    """As `records_of`, one at a time: a file of a large run may not fit into memory."""
    return typed(kind, run.each_line(name), f"{run.directory / name}")


def answer_faults(answers: Sequence[Answer], prompts: Iterable[Prompt]) -> str:
    """What keeps these from being one answer to each of the prompts, in words; empty if nothing does."""
    count, known = Counter(answer.id for answer in answers), {prompt.id: prompt for prompt in prompts}
    ids = {
        "without an answer": [one for one in known if not count[one]],
        "with several answers": [one for one, number in count.items() if number > 1],
        "not a prompt of this file": [one for one in count if one not in known],
        "with another prompt": [
            one.id
            for one in answers
            if one.id in known and (one.prompt, one.kind) != (known[one.id].text, known[one.id].kind)
        ],
    }
    return "; ".join(f"{', '.join(map(quote, of_fault))} {fault}" for fault, of_fault in ids.items() if of_fault)


def answer_files(seed: int, arm: str, step: int | None = None) -> list[str]:
    """The files of an arm's answers; `step` for those during training."""
    return [paths.answers(seed, arm, file, step) for file in ANSWER_FILES]


def evaluation_work(arm: str, step: int | None) -> str:
    """The name in the manifest of an arm's evaluation, at its end or at a training step."""
    return f"evaluation of {arm}" + (f" at step {step}" if step else "")


def answers_of(run: Run, seed: int, arm: str, step: int | None = None) -> list[Answer]:
    """An arm's stored answers, at the end or at a training step; none if the seed failed before its evaluation.

    Raises:
        UserError: a line is not an answer.
    """
    return list(each_answer(run, seed, arm, step))


def each_answer(run: Run, seed: int, arm: str, step: int | None = None) -> Iterator[Answer]:
    """As `answers_of`, one at a time."""
    return (answer for name in answer_files(seed, arm, step) for answer in each_record(run, name, Answer))


def suite_folders(directory: Path) -> list[Path]:
    """The folders of a run's suites that have results, in the order of their names.

    Raises:
        UserError: the results in one were made by no evaluation.
    """
    folders = [file.parent for file in sorted(directory.glob(f"{paths.SUITES}/*/{paths.RESULTS}"))]
    for folder in folders:
        open_suite(folder)
    return folders


def open_suite(directory: Path) -> Run:
    """The evaluation in a folder with results. No file is verified.

    Raises:
        UserError: the folder is not that of an evaluation.
    """
    if not (directory / MANIFEST).is_file():
        raise UserError(
            f"{directory / paths.RESULTS}: no evaluation stored it (the folder has no {MANIFEST}); remove the folder, "
            "and evaluate the suite with: cai-base evaluate"
        )
    run = Run.watch(directory)
    if "suite" not in run.config:
        raise UserError(f"{directory / MANIFEST}: is not that of an evaluation; remove the folder")
    return run


def stored_adapter(run: Run, seed: int, phase: str) -> Path | None:
    """The folder of the adapter that a seed exported after a phase; None if the seed failed.

    Raises:
        UserError: an adapter lies there that the run did not store.
    """
    folder = paths.adapter(seed, phase)
    files = [run.vouched(f"{folder}/{name}") for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)]
    return run.directory / folder if all(files) else None
