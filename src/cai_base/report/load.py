"""Reads a run's directory for the report: typed records, or one sentence that says what is wrong."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cai_base import paths
from cai_base.arms import ARMS
from cai_base.errors import UserError
from cai_base.evaluation.tasks.comparisons import NAME as COMPARISONS
from cai_base.inputs import Inputs
from cai_base.reading import RESTORE, Model, parse_json, read_record, read_records, read_text
from cai_base.records import (
    Answer,
    Chain,
    ComparisonsResults,
    Results,
    StyleResults,
    SuiteResults,
    TrainingStep,
)
from cai_base.report.check import check_comparisons, check_figures, check_run, check_style
from cai_base.run.stored import answer_files, answers_of, open_suite
from cai_base.settings.schema import RunSettings
from cai_base.store import CONFIG, Run
from cai_base.text import resume_command

SCHEMA = 1
A_RUN = "restore it, or give a directory that `cai-base run` made"


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A finished run.

    Attributes:
        principles: the critique request of each principle, by the principle's name.
    """

    run: Run
    results: Results
    settings: RunSettings
    principles: Mapping[str, str]

    @property
    def directory(self) -> Path:
        """The run's directory."""
        return self.run.directory

    @property
    def seeds(self) -> tuple[int, ...]:
        """The run's seeds, including failed ones."""
        return self.results.seeds

    @property
    def trained_arms(self) -> list[str]:
        """The trained arms without the controls, in the order of tables."""
        return [name for name in ARMS if name in self.results.arms and ARMS[name].group == "trained"]

    def steps(self, phase: str) -> dict[int, list[TrainingStep]]:
        """The training steps of a phase, by seed; a seed without any is absent."""
        steps = {seed: list(stored_records(self.run, paths.metrics(seed, phase), TrainingStep)) for seed in self.seeds}
        return {seed: of_seed for seed, of_seed in steps.items() if of_seed}

    def chains(self) -> Iterator[tuple[int, Chain]]:
        """Every revision chain with its seed."""
        for seed in self.seeds:
            name = paths.chains(seed)
            for number, chain in enumerate(stored_records(self.run, name, Chain), start=1):
                if not len(chain.responses) == len(chain.verdicts) == len(chain.unscored):
                    raise UserError(
                        f"{self.directory / name}:{number}: verdicts: every response must have one, or null; {RESTORE}"
                    )
                yield seed, chain

    def answers(self, arm: str, seed: int, step: int | None = None) -> list[Answer]:
        """An arm's final answers for one seed, or its answers at a training step; none if the seed failed earlier.

        Raises:
            UserError: a line is not an answer, or the run did not store one of the files.
        """
        for name in answer_files(seed, arm, step):
            self.run.vouched(name)
        return answers_of(self.run, seed, arm, step)

    def evaluated_steps(self, arm: str) -> list[int]:
        """The training steps at which an arm was evaluated, in at least one seed."""
        folders = [self.directory / paths.evaluation(seed, arm) for seed in self.seeds]
        steps = {paths.evaluated_step(path.name) for folder in folders for path in folder.glob("*")}
        return sorted(step for step in steps if step is not None)


def stored_records(run: Run, name: str, kind: type[Model]) -> Iterator[Model]:
    """The records of a file of a run, as far as the manifest vouches for it; none if there is no such file.

    Raises:
        UserError: a line is no such record, or the run did not store the file.
    """
    return read_records(run.directory / name, kind, run.vouched(name))


def load(directory: Path) -> StoredRun:
    """Read a run's directory.

    Raises:
        UserError: the directory has no results, results of another version, results that are not a run's, or files that
            the run did not store.
    """
    file = directory / paths.RESULTS
    _refuse_missing(file, f"finish the run first: {resume_command(directory)}")
    _refuse_another_schema(file)
    results = read_record(file, Results, "the results of a run", RESTORE)
    check_figures(file, results)
    check_run(file, results)
    for name in (paths.INPUTS, CONFIG):
        _refuse_missing(directory / name, A_RUN)
    run = Run.watch(directory)
    for name in (paths.RESULTS, paths.INPUTS, CONFIG):
        run.vouched(name)
    inputs = read_record(directory / paths.INPUTS, Inputs, "the inputs of a run", RESTORE)
    return StoredRun(
        run,
        results,
        read_record(directory / CONFIG, RunSettings, "the settings of a run", RESTORE),
        {principle.name: principle.critique_request for principle in inputs.constitution.principles},
    )


def load_suite(directory: Path) -> SuiteResults | ComparisonsResults:
    """Read the results of a suite.

    Raises:
        UserError: the directory has no results, results of another version, results that are not a suite's, or results
            that no evaluation stored.
    """
    file = directory / paths.RESULTS
    _refuse_missing(file, "give a directory that `cai-base evaluate` made")
    content = _refuse_another_schema(file)
    suite = content.get("suite")
    if isinstance(suite, dict) and (suite.get("name") == COMPARISONS or "comparisons" in suite):
        compared = read_record(file, ComparisonsResults, "the results of comparisons", RESTORE)
        check_comparisons(file, compared)
        open_suite(directory).check(paths.RESULTS)
        return compared
    results = read_record(file, SuiteResults, "the results of a suite", RESTORE)
    check_figures(file, results)
    open_suite(directory).check(paths.RESULTS)
    return results


def load_style(directory: Path) -> StyleResults | None:
    """Read the results of a run's style evaluation; None if the run has none.

    Raises:
        UserError: they are of another version, an arm is unknown, or the run did not store them.
    """
    file = directory / paths.STYLE
    if not file.exists():
        return None
    _refuse_another_schema(file)
    results = read_record(file, StyleResults, "the results of a style evaluation", RESTORE)
    check_style(file, results)
    Run.watch(directory).check(paths.STYLE)
    return results


def is_suite(directory: Path) -> bool:
    """Whether a directory's results are those of a suite."""
    file = directory / paths.RESULTS
    return file.is_file() and "suite" in _refuse_another_schema(file)


def _refuse_missing(file: Path, remedy: str) -> None:
    if not file.exists():
        raise UserError(f"{file}: does not exist; {remedy}")


def _refuse_another_schema(file: Path) -> Mapping[str, object]:
    """Read a results file as JSON; UserError unless it has this version's schema."""
    content = parse_json(file, read_text(file, "a JSON file of results"))
    if not isinstance(content, dict):
        raise UserError(f"{file}: must be a JSON object with results; {RESTORE}")
    if content.get("schema") != SCHEMA:
        raise UserError(
            f"{file}: schema is {content.get('schema')!r} and this version reads {SCHEMA}; "
            "use the version of cai-base that made the run"
        )
    return content
