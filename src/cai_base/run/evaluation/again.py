"""Computes the results of a run's suites and styles again, from the stored answers and without a model.

What the answers do not have (the suite's name and sizes, the questions of the styles, rubrics) is taken from the stored
results, whose hash has been compared before.
"""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from cai_base import paths
from cai_base.errors import UserError
from cai_base.evaluation.tasks.style_sets import style_set
from cai_base.evaluation.tasks.styles import StylesTask
from cai_base.inputs import Inputs
from cai_base.reading import build, parse_json, read_record, read_text
from cai_base.records import (
    Answer,
    AskedArm,
    AskedTarget,
    ComparedAnswers,
    ComparisonsResults,
    StyledAnswer,
    StyleResults,
    SuiteResults,
)
from cai_base.run.evaluation.targets import JUDGING_FLAGS
from cai_base.run.results import style, suite
from cai_base.run.results.shared import EvaluationContext
from cai_base.run.results.warnings import accepted_changes
from cai_base.run.stored import records_of
from cai_base.settings.engines import ENGINES
from cai_base.settings.schema import RunSettings
from cai_base.settings.validation import Source, stored_settings, validated
from cai_base.store import CONFIG, JsonObject, Run

Record = TypeVar("Record", Answer, ComparedAnswers)
RESTORE = "restore it, or ask the suite again with cai-base evaluate"


def suite_again(run: Run, evaluation: Run) -> SuiteResults | ComparisonsResults:
    """The content of `results.json` of a suite that a run's arms were asked, from the answers as they are now.

    Args:
        evaluation: the suite's folder, which has results.

    Raises:
        UserError: a file is not what an evaluation of this run stores, or the answers of one arm and seed are to other
            prompts than those of another.
    """
    file = evaluation.directory / paths.RESULTS
    content = parse_json(file, read_text(file, "the results of a suite"))
    if isinstance(content, dict) and "judge" in content:
        stored = read_record(file, SuiteResults, "the results of a suite", RESTORE)
        answers = _answers(evaluation, stored.arms, stored.seeds, stored.suite.subset, Answer)
        kinds = [one.kind for one in _any(answers)]
        computed = suite.judged_suite(_context(run, evaluation, stored), answers, stored.suite, kinds)
        return computed.model_copy(update={"rubrics": stored.rubrics})
    compared = read_record(file, ComparisonsResults, "the results of comparisons", RESTORE)
    scores = _answers(evaluation, compared.arms, compared.seeds, compared.suite.subset, ComparedAnswers)
    return suite.compared_suite(_context(run, evaluation, compared), scores, compared.suite)


def style_again(run: Run) -> StyleResults:
    """The content of a run's `style.json`, from the answers as they are now.

    Raises:
        UserError: a file is not what `cai-base style` stores.
    """
    stored = read_record(run.directory / paths.STYLE, StyleResults, "the results of a style evaluation", RESTORE)
    settings = stored_settings(run)
    task = StylesTask(style_set(settings.data), stored.questions, stored.samples)
    answers = {
        arm: [records_of(run, paths.styled_answers(seed, arm), StyledAnswer) or None for seed in stored.seeds]
        for arm in stored.arms
    }
    for arm, per_seed in answers.items():
        for seed, of_seed in zip(stored.seeds, per_seed, strict=True):
            same = of_seed is None or len(of_seed) == len(task.items)
            if not (same and all(map(task.answers, task.items, of_seed or ()))):
                raise UserError(
                    f"{run.directory / paths.styled_answers(seed, arm)}: its answers are not those to the questions "
                    f"of {paths.STYLE}; {RESTORE}"
                )
    about = AskedTarget(of="run", model=stored.model)
    return style.collect(_of_settings(run, settings, about, stored.seeds, {}, ()), answers, task)


def _context(run: Run, evaluation: Run, stored: SuiteResults | ComparisonsResults) -> EvaluationContext:
    """How the suite was evaluated, from its configuration and that of the run."""
    where = str(evaluation.directory / CONFIG)
    head = {name: value for name, value in evaluation.config.items() if name in AskedTarget.model_fields}
    about = build(AskedTarget, head, where, remedy=RESTORE)
    arms = {
        name: build(AskedArm, evaluation.recorded(f"arm {name}") or {}, str(evaluation.directory), remedy=RESTORE)
        for name in stored.arms
    }
    # A change of the run's own files that was accepted after the suite was asked is on the run's page, not here.
    accepted = [one for one in accepted_changes(run) if one in stored.warnings] + accepted_changes(evaluation)
    return _of_settings(run, _settings(run, evaluation), about, stored.seeds, arms, accepted)


def _of_settings(
    run: Run,
    settings: RunSettings,
    about: AskedTarget,
    seeds: Sequence[int],
    arms: dict[str, AskedArm],
    accepted: Sequence[str],
) -> EvaluationContext:
    return EvaluationContext(
        target=about,
        model=settings.model,
        engine=settings.engine,
        data=settings.data,
        seeds=seeds,
        judges=settings.judge_choices,
        evaluation=settings.evaluation,
        inputs=Inputs.read(run.directory / paths.INPUTS).model_copy(update={"rubrics": ()}),
        arms=arms,
        accepted=accepted,
    )


def _settings(run: Run, evaluation: Run) -> RunSettings:
    """The run's settings with the judge and the sampling of the suite."""
    table: JsonObject = dict(run.config)
    if "judge" in evaluation.config:
        flags = {*JUDGING_FLAGS, "evaluation"}
        table = {name: value for name, value in table.items() if name not in flags}
        table |= {name: value for name, value in evaluation.config.items() if name in flags}
        if ENGINES[str(table["engine"])].served and table.get("judge") != run.config.get("judge"):
            table.pop("dtype", None)  # it was the precision of the judge that is replaced
    return validated(table, Source(None, evaluation.directory / CONFIG, table))


def _answers(
    evaluation: Run, arms: Iterable[str], seeds: Sequence[int], count: int, kind: type[Record]
) -> dict[str, list[list[Record] | None]]:
    """The stored answers of every arm by seed; None for a seed without any."""
    first: list[str] | None = None
    by_arm: dict[str, list[list[Record] | None]] = {}
    for arm in arms:
        by_arm[arm] = []
        for seed in seeds:
            file = paths.suite_answers(seed, arm)
            answers = records_of(evaluation, file, kind)
            ids = [one.id for one in answers]
            first = first or ids
            if ids and (ids != first or len(set(ids)) != count):
                raise UserError(
                    f"{evaluation.directory / file}: must have one answer to each of the {count} prompts of this "
                    "suite, in their order; restore these lines: only what is inside an answer can be changed"
                )
            by_arm[arm].append(answers or None)
    return by_arm


def _any(answers: dict[str, list[list[Record] | None]]) -> Sequence[Record]:
    """The answers of some arm and seed: all are to the same prompts."""
    return next((one for per_seed in answers.values() for one in per_seed if one), [])
