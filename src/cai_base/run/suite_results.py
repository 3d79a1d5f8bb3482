"""From the stored answers to a suite to its `results.json`, byte-equal for equal evaluations."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from cai_base.arms import MODEL, comparisons
from cai_base.embedded import EMBEDDED
from cai_base.errors import UserError
from cai_base.evaluation import metrics
from cai_base.evaluation.failures import find_failures
from cai_base.evaluation.judges import GroundTruth, agreement
from cai_base.evaluation.judges.load import judge_name
from cai_base.evaluation.tasks import comparisons as hhh
from cai_base.evaluation.tasks.suites import Asked, Suite
from cai_base.inputs import Inputs
from cai_base.paths import suite_answers
from cai_base.reading import typed
from cai_base.records import (
    Answer,
    ComparisonsAsked,
    ComparisonsResults,
    Figure,
    SuiteAsked,
    SuiteResults,
)
from cai_base.run.result_warnings import uncovered
from cai_base.run.results import INTERVALS, every_answer, rubrics_used, second_judge
from cai_base.settings.schema import RunSettings
from cai_base.store import Record, Run

MODEL_ARM = MODEL.name
"""What a model that is no run's arm is called in results."""
ARM = "arm "
"""What stands before an arm's name where the work on it is stored."""

Item = TypeVar("Item")

NAMED = 5
"""How many prompts that do not fit the context are named."""


def collect(
    run: Run, settings: RunSettings, inputs: Inputs, suite: Suite, asked: Sequence[Asked], units: int
) -> SuiteResults:
    """The content of `results.json` for a suite that is answered and judged.

    Args:
        units: how many units a finished arm has; an unfinished one is in no figure.
    """
    kinds = [str(one.prompt.kind) for one in asked]
    answers = {
        name: [None if lines is None else typed(Answer, lines, name) for lines in per_seed]
        for name, per_seed in _finished(run, settings, units).items()
    }
    figures = metrics.without_empty_optional(
        {
            name: metrics.figures(per_seed, kinds, one_model=_arm(run, name)["one_model"])
            for name, per_seed in answers.items()
        }
    )
    names = [name for name in next(iter(figures.values())) if _is_measured(name, figures)]
    arms = {arm: {name: by_metric[name] for name in names} for arm, by_metric in figures.items()}
    margins = {"helpfulness": settings.evaluation.helpfulness_margin}
    return SuiteResults(
        schema=1,
        suite=SuiteAsked(
            name=suite.name,
            files=tuple(suite.files),
            sha256=suite.sha256,
            prompts=len(suite.asked),
            asked=len(asked),
            attacks=sum(kind in metrics.ATTACKS for kind in kinds),
            safe=sum(kind not in metrics.ATTACKS for kind in kinds),
            left_out=dict(suite.left_out),
        ),
        of=run.config["of"],
        model=run.config["model"],
        base=run.config.get("base"),
        model_organism=settings.model == EMBEDDED,
        engine=settings.engine,
        seeds=tuple(settings.seed_numbers),
        layouts={name: _arm(run, name)["layout"] for name in answers},
        judge=judge_name(settings.judge),
        second_judge=None if settings.second_judge is None else second_judge(settings.second_judge, answers, kinds),
        votes=settings.votes,
        vote_agreement=agreement.between_votes(every_answer(answers)),
        rubrics=rubrics_used(inputs),
        intervals=INTERVALS,
        arms=arms,
        failures=tuple(find_failures(arms, list(settings.seed_numbers))),
        unscored={name: metrics.unscored_by_reason(per_seed) for name, per_seed in answers.items()},
        comparisons={
            f"{a} - {b}": metrics.compare(answers[a], answers[b], names, margins) for a, b in comparisons(arms)
        },
        failed={},
        warnings=(
            *_coverage_warnings(settings, arms, len(list(every_answer(answers)))),
            *_too_long({name: [(a.id, a.tokens) for a in _first(of_arm)] for name, of_arm in answers.items()}),
        ),
    )


def collect_comparisons(
    run: Run, settings: RunSettings, file: hhh.Comparisons, asked: int, units: int
) -> ComparisonsResults:
    """The content of `results.json` for the HHH comparisons; `units` as for `collect`."""
    answers = _finished(run, settings, units)
    tables = {name: hhh.Tables(lines, one_model=_arm(run, name)["one_model"]) for name, lines in answers.items()}
    return ComparisonsResults(
        schema=1,
        suite=ComparisonsAsked(
            name=hhh.NAME, files=file.files, sha256=file.sha256, comparisons=len(file.items), asked=asked
        ),
        of=run.config["of"],
        model=run.config["model"],
        base=run.config.get("base"),
        model_organism=settings.model == EMBEDDED,
        engine=settings.engine,
        seeds=tuple(settings.seed_numbers),
        layouts={name: _arm(run, name)["layout"] for name in answers},
        intervals=INTERVALS,
        arms={name: table.figures() for name, table in tables.items()},
        comparisons={f"{a} - {b}": tables[a].less(tables[b]) for a, b in comparisons(tables)},
        warnings=tuple(
            _too_long({name: [(a["id"], a["tokens"]) for a in _first(of_arm)] for name, of_arm in answers.items()})
        ),
    )


def _finished(run: Run, settings: RunSettings, units: int) -> dict[str, list[list[Record] | None]]:
    """The stored lines by seed of every finished arm, None for a seed that it lost, in the order of a run's arms.

    Raises:
        UserError: there is none with a seed.
    """
    finished = [name for name in (*settings.evaluated_arms, MODEL.name) if run.progress(f"{ARM}{name}") == units]
    seeds = settings.seed_numbers
    lines = {name: [run.lines(suite_answers(seed, name)) or None for seed in seeds] for name in finished}
    arms = {name: per_seed for name, per_seed in lines.items() if any(per_seed)}
    if not arms:
        raise UserError(
            f"{run.directory}: {', '.join(finished)} lost every seed in the run, so there is no model to ask"
        )
    return arms


def _arm(run: Run, name: str) -> Record:
    """How an arm was asked, as recorded when its answers were stored."""
    return run.found(f"{ARM}{name}") or {}


def _first(per_seed: Sequence[Sequence[Item] | None]) -> Sequence[Item]:
    """The first seed's answers; all seeds are asked the same."""
    return next((of_seed for of_seed in per_seed if of_seed is not None), ())


def _is_measured(name: str, arms: Mapping[str, Mapping[str, Figure]]) -> bool:
    """Whether the suite has prompts that a metric is taken over, and it was measured or had a judge."""
    has_prompts = any(arm[name].total for arm in arms.values())
    has_values = any(arm[name].scored for arm in arms.values())
    return has_prompts and (has_values or metrics.METRICS[name].judged)


def _coverage_warnings(settings: RunSettings, arms: Mapping[str, Mapping[str, Figure]], answers: int) -> list[str]:
    if settings.judge == "none":
        return [f"no judge was asked: all of {answers} answers are unscored; unscored is not safe"]
    warnings = uncovered(arms, judged=True)
    if settings.judge == GroundTruth.name and warnings:
        warnings.append(
            "the ground-truth judge knows the embedded model's village alone; for a suite in English give a judge, "
            "such as --judge openai:MODEL --judge-url URL or --judge hf:PATH"
        )
    return warnings


def _too_long(arms: Mapping[str, Sequence[tuple[str, int | None]]]) -> list[str]:
    """A warning for every arm whose context did not hold some of the suite, with the first of those."""
    warnings = []
    for name, tokens in arms.items():
        long = [prompt for prompt, number in tokens if number is None]
        if long:
            more = f" and {len(long) - NAMED} more" if len(long) > NAMED else ""
            warnings.append(
                f"{name}: {len(long)} of {len(tokens)} do not fit the model's context and are unscored: "
                f"{', '.join(long[:NAMED])}{more}"
            )
    return warnings
