"""Computes `study.json` from the stored answers of a study's finished runs. Equal runs give equal bytes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from cai_base import paths
from cai_base.arms import ARMS, BASELINE
from cai_base.errors import UserError
from cai_base.evaluation import metrics
from cai_base.evaluation.failures import find_failures
from cai_base.evaluation.judges.load import judge_name
from cai_base.evaluation.scoring import Scorer
from cai_base.evaluation.tasks.prompts import METRICS
from cai_base.inputs import Inputs
from cai_base.reading import read_record
from cai_base.records import (
    CellResults,
    ComparisonResults,
    Difference,
    Figure,
    Results,
    StudyCell,
    StudyContrast,
    StudyResults,
)
from cai_base.run.results.run import base_floor
from cai_base.run.results.shared import INTERVALS, head, model_name
from cai_base.run.stored import each_answer
from cai_base.settings.schema import RunSettings
from cai_base.settings.validation import stored_settings
from cai_base.store import Run
from cai_base.studies import folder


def collect(study: Path, shared: Mapping[str, Mapping[str, str]]) -> StudyResults:
    """The content of `study.json`.

    Args:
        shared: for every run, its stages that an earlier run made, with that run's name.

    Raises:
        UserError: a run is not finished, was changed, or is not the planned one; or the runs have other seeds,
            evaluation prompts or judges than one another, so that their answers cannot be paired.
    """
    plan = folder.read_plan(study)
    record = plan.record
    runs = {name: _StoredRun(folder.run_folder(study, name), plan, name) for name in plan.runs}
    first = next(iter(runs.values()))
    for name, one in runs.items():
        _refuse_unpaired(name, one, first)
    settings, inputs = first.settings, first.inputs
    cells = [runs[cell.run].answers(cell.arm) for cell in record.cells]
    margins = metrics.margins(settings.evaluation)
    kinds = [str(prompt.kind) for prompt in inputs.evaluation_prompts]
    ones = [ARMS[cell.arm].one_model for cell in record.cells]
    differences = [_compared(contrast, cells, ones, margins) for contrast in record.contrasts]
    corrected = metrics.correct_primary(differences, record.primary)
    return StudyResults(
        **head(settings.model, settings.seed_numbers, _models(runs)),
        study=record.study,
        question=record.question,
        about=record.about,
        judge=judge_name(settings.judge),
        engine=settings.engine,
        prompts=dict(Counter(kinds)),
        factors=record.factors,
        primary=record.primary,
        intervals=INTERVALS,
        cells=tuple(
            _cell(cell, answers, runs[cell.run], kinds, margins)
            for cell, answers in zip(record.cells, cells, strict=True)
        ),
        comparisons=tuple(
            ComparisonResults.model_validate(contrast.dump() | {"metrics": of_contrast})
            for contrast, of_contrast in zip(record.contrasts, corrected, strict=True)
        ),
        shared={run: dict(stages) for run, stages in shared.items() if stages},
        warnings=_warnings(runs),
    )


NOT_VARIED = (
    "answers are compared in pairs, so the runs of a study must have equal seeds, evaluation prompts and judges"
)


class _StoredRun:
    """A finished run of the study.

    Raises:
        UserError: it is not finished, was changed, or is not the run of this name in the plan.
    """

    def __init__(self, directory: Path, plan: folder.StoredPlan, name: str) -> None:
        self.run = Run.open(directory)
        folder.check_planned(plan, name, self.run)
        if not self.run.progress("results"):
            raise UserError(f"{directory}: is not finished; run the study's command again")
        self.settings = stored_settings(self.run)
        self.inputs = Inputs.read(directory / paths.INPUTS)
        remedy = "use the version of cai-base that made the study"
        self.results = read_record(directory / paths.RESULTS, Results, "the results of a run", remedy)
        self._scorer = Scorer(base_floor(self.run, self.settings.seed_numbers))

    def answers(self, arm: str) -> metrics.PerSeed:
        """An arm's answers, by seed."""
        return [self._scorer.each(each_answer(self.run, seed, arm)) or None for seed in self.settings.seed_numbers]


def _refuse_unpaired(name: str, one: _StoredRun, first: _StoredRun) -> None:
    """Raises UserError if a run's answers cannot be paired with the first run's, seed by seed and prompt by prompt."""
    fact = unpaired((one.settings, one.inputs), (first.settings, first.inputs))
    if fact:
        raise UserError(f"{one.run.directory}: {name} has {fact} than {first.run.directory.name}; {NOT_VARIED}")


def unpaired(one: tuple[RunSettings, Inputs], other: tuple[RunSettings, Inputs]) -> str:
    """What keeps the answers of two runs from being compared in pairs, as "other seeds"; empty if nothing does."""
    facts: dict[str, list[object]] = {
        "other seeds": [settings.seed_numbers for settings, _ in (one, other)],
        "another judge": [judge_name(settings.judge) for settings, _ in (one, other)],
        "other evaluation prompts": [
            [(prompt.id, prompt.kind, prompt.text) for prompt in inputs.evaluation_prompts]
            for _, inputs in (one, other)
        ],
    }
    return next((fact for fact, values in facts.items() if values[0] != values[1]), "")


def _cell(
    cell: StudyCell, answers: metrics.PerSeed, run: _StoredRun, kinds: Sequence[str], margins: Mapping[str, float]
) -> CellResults:
    compared: dict[str, Difference] = {}
    if cell.arm != BASELINE and not _empty(answers):
        ones = ARMS[cell.arm].one_model, ARMS[BASELINE].one_model
        compared = metrics.compare(answers, run.answers(BASELINE), METRICS, margins, one_model=ones)
    figures = _figures(answers, kinds, one_model=ARMS[cell.arm].one_model)
    result = CellResults(
        levels=cell.levels,
        arm=cell.arm,
        run=cell.run,
        figures=figures,
        minus_sft=compared,
        failures=tuple(find_failures({cell.arm: figures}, run.settings.seed_numbers)),
    )
    pairwise = (run.results.pairwise or {}).get(cell.arm)
    return result if pairwise is None else result.model_copy(update={"pairwise": pairwise})


def _empty(answers: metrics.PerSeed) -> bool:
    return all(of_seed is None for of_seed in answers)


def _figures(answers: metrics.PerSeed, kinds: Sequence[str], *, one_model: bool) -> dict[str, Figure]:
    if _empty(answers):
        return {}
    arm = metrics.figures(answers, kinds, one_model=one_model)
    return metrics.without_empty_optional({"": arm})[""]


def _compared(
    contrast: StudyContrast, cells: Sequence[metrics.PerSeed], one_model: Sequence[bool], margins: Mapping[str, float]
) -> dict[str, Difference]:
    """First minus second, for every metric that at least one answer has; empty if a cell has no answers.

    Args:
        one_model: of each cell, whether all seeds of its arm sample from the same weights.
    """
    first, second = ([cells[place] for place in side] for side in (contrast.first, contrast.second))
    if any(_empty(cell) for cell in (*first, *second)):
        return {}
    ones = [one_model[place] for place in contrast.first], [one_model[place] for place in contrast.second]
    differences = metrics.compare_means(first, second, contrast.scale, margins, one_model=ones)
    return {name: one for name, one in differences.items() if one.difference is not None}


def _models(runs: Mapping[str, _StoredRun]) -> str:
    """The base models of the runs, which a study may vary."""
    return ", ".join(dict.fromkeys(model_name(stored.settings.model) for stored in runs.values()))


def _warnings(runs: Mapping[str, _StoredRun]) -> dict[str, tuple[str, ...]]:
    """Every distinct warning of the runs, with the runs that have it."""
    warnings: dict[str, list[str]] = {}
    for name, stored in runs.items():
        for warning in stored.results.warnings:
            warnings.setdefault(warning, []).append(name)
    return {warning: tuple(names) for warning, names in warnings.items()}
