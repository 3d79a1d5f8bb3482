"""Accepts files of a run that were changed after the run. This is recorded, and the results say so."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from cai_base import paths
from cai_base.errors import UserError
from cai_base.inputs import Inputs
from cai_base.inputs.kinds import ANSWER_FILES, PROMPT_KINDS
from cai_base.progress import Progress
from cai_base.records import Answer
from cai_base.run.evaluation.again import style_again, suite_again
from cai_base.run.results import run as results
from cai_base.run.stored import answer_faults, records_of
from cai_base.run.verify import failures
from cai_base.settings.validation import stored_settings
from cai_base.store import ACCEPT, CONFIG, MANIFEST, JsonObject, Run, to_json
from cai_base.text import command_on

COMPUTED = (paths.RESULTS, paths.STYLE)
"""The names of files of figures, which a command computes from other files."""
NOT_TAKEN = "is computed from the stored answers, so an edit of it is not taken"
TAKERS = "resume, report, evaluate, style and inspect"
"""The commands that have the flag."""


def advice(directory: Path, name: str) -> str:
    """How a changed file is taken as it is, or why it is not: what the message that refuses it says last.

    Args:
        directory: of the run, or of an evaluation.
        name: the file's path in it.
    """
    if Path(name).name in COMPUTED:
        again = {paths.STYLE: command_on("style", directory)}.get(name, "")
        if directory.parent.name == paths.SUITES:
            again = "the same cai-base evaluate"
        return f"; it {NOT_TAKEN}{again and f'; {again} computes it again'}"
    if name == CONFIG:
        return ""
    run = directory
    if directory.parent.name == paths.SUITES and (directory.parent.parent / MANIFEST).is_file():
        run, name = directory.parent.parent, f"{paths.SUITES}/{directory.name}/{name}"
    if "suite" in Run.watch(run).config:  # an evaluation of a model outside a run, whose commands have no such flag
        return ""
    return f", or take it as it is: {ACCEPT} {shlex.quote(name)}, a flag of {TAKERS}; the results then say so"


def accept_changed(directory: Path, names: Sequence[str], progress: Progress) -> None:
    """Accept changed files of a run, and recompute its figures if it is finished.

    Args:
        names: paths inside the run, also of its suites, such as `suites/harmbench/results.json`.

    Raises:
        UserError: the run stored no such file, it is computed from others, it or another file is missing or changed,
            its answers are not exactly those to the run's prompts, or no figures can be computed from it.
    """
    owners: dict[Path, list[str]] = {}
    for name in names:
        folder, inside = _owner(directory, name)
        if Path(inside).name in COMPUTED:
            raise UserError(f"{ACCEPT} {name}: {NOT_TAKEN}; restore it")
        owners.setdefault(folder, []).append(inside)
    for folder, files in owners.items():
        run = Run.watch(folder)
        with run.locked():
            changed = [name for name in files if run.accept(name)]
            for name in sorted({*files} - {*changed}):
                progress.say(f"{ACCEPT} {name}: is as the run stored it; there was nothing to accept")
            if not changed:
                continue
            # The figures depend on the other files too, and are computed again.
            run.verify(computed=COMPUTED)
            for name in changed:
                _refuse_other_ids(run, name)
            of_suite = folder != directory
            again: dict[str, bytes] = {}
            if run.progress("results"):
                computed = suite_again(Run.watch(directory), run).dump() if of_suite else _results_again(run)
                again[paths.RESULTS] = to_json(computed)
            if not of_suite and run.progress("style"):
                again[paths.STYLE] = to_json(style_again(run).dump())
            run.commit(write=again)
            says = "the results say so" if again else "the results will say so"
            for name in changed:
                progress.say(f"{folder / name} is taken as it is; {says}")


def _refuse_other_ids(run: Run, name: str) -> None:
    """Raises UserError if a file of a run's answers lacks an answer, or has one twice or to another prompt.

    The denominators of the figures would change without a word.
    """
    of_file = paths.answers_of(name)
    if "suite" in run.config or of_file is None or of_file.task not in ANSWER_FILES:
        return
    prompts = Inputs.read(run.directory / paths.INPUTS).evaluation_prompts
    of_task = [one for one in prompts if one.kind and PROMPT_KINDS[one.kind].file == of_file.task]
    faults = answer_faults(records_of(run, name, Answer), of_task)
    if faults:
        raise UserError(
            f"{run.directory / name}: must have one answer to each of its prompts, and has {faults}; "
            "restore these lines: only what is inside an answer can be changed"
        )


def _results_again(run: Run) -> JsonObject:
    """The content of a finished run's `results.json`, computed from its current files."""
    settings = stored_settings(run)
    inputs = Inputs.read(run.directory / paths.INPUTS)
    failed = failures(run, settings.scope, settings.dpo.pairs)
    return results.collect(run, settings, inputs, failed).dump()


def _owner(directory: Path, name: str) -> tuple[Path, str]:
    """The folder whose manifest has the file: the run, or a suite inside it; and the file's path there."""
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise UserError(f"{ACCEPT} {name}: is not the path of a file inside the run")
    if len(path.parts) > 2 and path.parts[0] == paths.SUITES:
        suite = directory / paths.SUITES / path.parts[1]
        if (suite / MANIFEST).is_file():
            return suite, Path(*path.parts[2:]).as_posix()
    return directory, path.as_posix()
