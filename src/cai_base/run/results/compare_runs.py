"""Compares finished runs, paired by the seeds and prompts that they share, and lists the settings that differ."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cai_base import paths
from cai_base.arms import ARMS
from cai_base.errors import UserError
from cai_base.evaluation import metrics
from cai_base.evaluation.fluency import mark_broken
from cai_base.evaluation.tasks.prompts import PROMPT_FIT
from cai_base.inputs import Inputs
from cai_base.inputs.prompts import Example
from cai_base.reading import RESTORE, read_record
from cai_base.records import Answer, Difference, Results
from cai_base.records.compared import Against, ComparedRun, RunsCompared
from cai_base.run.findings import stored_findings
from cai_base.run.stored import answers_of, check_finished
from cai_base.settings.validation import stored_settings
from cai_base.store import Run

NOT_COMPARED = ("threads", "accept", "max-cost", "tinker-timeout")
"""Settings that do not affect results."""
OF_THE_FLOOR, OF_THE_BASE_MODEL = "broken_rate", ("fluency", PROMPT_FIT)
"""Metrics computed with the run's own base model; the first also with the floor of that model's own answers."""


@dataclass(frozen=True, slots=True)
class _FinishedRun:
    """A finished run.

    Attributes:
        ruler: what the likelihood of answers is measured with: the base model's hash, and the turns before a prompt.
            None if the run stored no hash.
    """

    name: str
    run: Run
    results: Results
    ruler: tuple[str, tuple[Example, ...]] | None

    def answers(self, arm: str, seed: int) -> list[Answer]:
        """The final answers of an arm and seed, as its results count them; none if that seed failed."""
        return mark_broken(answers_of(self.run, seed, arm), self.results.fluency.floor)


def compare(directories: Sequence[Path]) -> RunsCompared:
    """Compare every run with the first one.

    The differences leave out metrics that the two runs computed with different base models, such as broken language.

    Args:
        directories: of two or more finished runs.

    Raises:
        UserError: one of them is not a finished run.
    """
    if len(directories) < 2:
        raise UserError(f"{len(directories)} run: give at least two runs to compare")
    if len({directory.resolve() for directory in directories}) < len(directories):
        raise UserError("a run is named twice, and has no difference from itself; name each run once")
    for directory in directories:
        check_finished(Run.watch(directory))  # before the hashes of all files are compared, which takes long
    runs = [_load(directory, name) for directory, name in zip(directories, _names(directories), strict=True)]
    first, *others = runs
    return RunsCompared(
        schema=1,
        runs=tuple(_summary(one) for one in runs),
        settings=_differing([_settings(one.run) for one in runs]),
        against_first=tuple(_against(one, first) for one in others),
        warnings=tuple(_warnings(runs)),
    )


def _names(directories: Sequence[Path]) -> list[str]:
    names = [directory.resolve().name for directory in directories]
    return names if len(set(names)) == len(names) else [str(directory) for directory in directories]


def _load(directory: Path, name: str) -> _FinishedRun:
    run = Run.open(directory)
    check_finished(run)
    findings = stored_findings(run)
    ruler = None if findings is None else (findings.model, Inputs.read(directory / paths.INPUTS).few_shot)
    results = read_record(directory / paths.RESULTS, Results, "the results of a run", RESTORE)
    return _FinishedRun(name, run, results, ruler)


def _summary(one: _FinishedRun) -> ComparedRun:
    return ComparedRun(
        name=one.name,
        model=one.results.model,
        model_organism=one.results.model_organism,
        judge=one.results.judge,
        seeds=one.results.seeds,
        arms={
            arm: {metric: figure.mean for metric, figure in figures.items()}
            for arm, figures in one.results.arms.items()
        },
        failures=tuple(one.results.failures),
        warnings=tuple(one.results.warnings),
    )


def _against(other: _FinishedRun, first: _FinishedRun) -> Against:
    """The other run minus the first, over the seeds and prompts that both have."""
    seeds = tuple(seed for seed in other.results.seeds if seed in first.results.seeds)
    arms = [arm for arm in other.results.arms if arm in first.results.arms]
    shared = {arm: [_shared(other.answers(arm, seed), first.answers(arm, seed)) for seed in seeds] for arm in arms}
    prompts = {answer.id for per_seed in shared.values() for ours, _ in per_seed for answer in ours}
    differences: dict[str, dict[str, Difference]] = {}
    same: list[str] = []
    not_comparable = _not_comparable(other, first)
    left_out: set[str] = set()
    for arm, per_seed in shared.items():
        ours, theirs = ([pair[side] or None for pair in per_seed] for side in (0, 1))
        if not (any(ours) and any(theirs)):
            continue
        names = [name for name in other.results.arms[arm] if name in first.results.arms[arm]]
        left_out.update(name for name in names if name in not_comparable)
        if _judged(ours) == _judged(theirs):
            same.append(arm)
            continue
        names = [name for name in names if name not in not_comparable]
        differences[arm] = metrics.compare(ours, theirs, names, {}, one_model=(ARMS[arm].one_model,) * 2)
    return Against(
        run=other.name,
        seeds=seeds,
        prompts=len(prompts),
        arms=differences,
        same_answers=tuple(same),
        left_out=tuple(name for name in not_comparable if name in left_out),
    )


def _not_comparable(other: _FinishedRun, first: _FinishedRun) -> tuple[str, ...]:
    """The metrics that the two runs did not measure in the same way."""
    if other.ruler is None or other.ruler != first.ruler:
        return OF_THE_FLOOR, *OF_THE_BASE_MODEL
    return () if other.results.fluency.floor == first.results.fluency.floor else (OF_THE_FLOOR,)


def _judged(per_seed: Sequence[Sequence[Answer] | None]) -> list[list[Answer]]:
    """The answers and verdicts without what is measured with the run's base model: the same text may have another
    likelihood."""
    nothing = {"logprob": None, "opening_logprob": None, "elsewhere_logprob": None, "broken": None}
    return [[answer.model_copy(update=nothing) for answer in answers or ()] for answers in per_seed]


def _shared(ours: Sequence[Answer], theirs: Sequence[Answer]) -> tuple[list[Answer], list[Answer]]:
    """The answers to the prompts that both have, in the same order."""
    by_prompt = {(answer.id, answer.prompt): answer for answer in theirs}
    pairs = [(one, by_prompt[one.id, one.prompt]) for one in ours if (one.id, one.prompt) in by_prompt]
    return [one for one, _ in pairs], [other for _, other in pairs]


def _settings(run: Run) -> dict[str, str]:
    """Every setting by its dotted name, and a digest of the inputs, as JSON. A packaged constitution has its name."""
    whole = {**run.config, **stored_settings(run).model_dump(mode="json", by_alias=True)}  # with its defaults
    flat = {name: value for name, value in _flat(whole, "") if name not in NOT_COMPARED}
    if flat.get("constitution") == "null":
        constitution = Inputs.read(run.directory / paths.INPUTS).constitution
        flat["constitution"] = json.dumps(f"{constitution.name} (packaged)", ensure_ascii=False)
    digest = hashlib.sha256((run.directory / paths.INPUTS).read_bytes()).hexdigest()
    return {**flat, "inputs (SHA-256)": json.dumps(digest[:12])}


def _flat(table: Mapping[str, object], prefix: str) -> list[tuple[str, str]]:
    leaves: list[tuple[str, str]] = []
    for name, value in table.items():
        if isinstance(value, Mapping):
            leaves += _flat(value, f"{prefix}{name}.")
        else:
            leaves.append((prefix + name, json.dumps(value, ensure_ascii=False)))
    return leaves


def _differing(settings: Sequence[Mapping[str, str]]) -> dict[str, tuple[str, ...]]:
    names = dict.fromkeys(name for of_run in settings for name in of_run)
    values = {name: tuple(of_run.get(name, "null") for of_run in settings) for name in names}
    return {name: of_runs for name, of_runs in values.items() if len(set(of_runs)) > 1}


def _listed(one: _FinishedRun) -> str:
    return f"{one.name} has {', '.join(map(str, one.results.seeds))}"


def _warnings(runs: Sequence[_FinishedRun]) -> list[str]:
    first, *others = runs
    warnings = []
    for other in others:
        if other.results.judge != first.results.judge:
            warnings.append(
                f"{other.name} was judged by {other.results.judge}, {first.name} by {first.results.judge}: "
                "a difference between the runs may be a difference between the judges"
            )
        if other.results.model != first.results.model:
            warnings.append(f"{other.name} is about {other.results.model}, {first.name} about {first.results.model}")
        if not set(other.results.seeds) & set(first.results.seeds):
            warnings.append(
                f"{other.name} and {first.name} share no seed ({_listed(other)}; {_listed(first)}), so they cannot be "
                "paired: compare the intervals in their reports, or run one of them again with the seeds of the other"
            )
    return warnings
