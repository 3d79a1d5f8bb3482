"""What the stored answers to a suite add up to: its `results.json`, byte-equal for equal evaluations."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cai_base.embedded import EMBEDDED
from cai_base.errors import UserError
from cai_base.evaluation import failures, metrics
from cai_base.evaluation.judges import GroundTruth, agreement
from cai_base.evaluation.judges.load import judge_name
from cai_base.evaluation.tasks import comparisons as hhh
from cai_base.evaluation.tasks.suites import Suite, SuitePrompt
from cai_base.inputs import Inputs
from cai_base.records import ComparedAnswers
from cai_base.run.results import INTERVALS, compared_arms, second_judge, uncovered
from cai_base.settings.schema import RunSettings
from cai_base.store import Record, Run

MODEL_ARM = "model"
"""What a model that is no run's arm is called in results."""
ARM = "arm "
"""What stands before an arm's name where the work on it is stored."""
SHOWN = 5
"""How many of those that were left out are named."""


def collect(
    run: Run, settings: RunSettings, inputs: Inputs, suite: Suite, asked: Sequence[SuitePrompt], units: int
) -> Record:
    """The content of `results.json` for a suite that is answered and judged.

    Args:
        units: how many units an arm has that is done; another is in no figure.
    """
    kinds = [str(one.prompt.kind) for one in asked]
    answers = _stored(run, settings, units)
    every = [record for per_seed in answers.values() for records in per_seed for record in records or ()]
    arms = metrics.asked(
        {
            name: metrics.arm(per_seed, kinds, one_model=_arm(run, name)["one_model"])
            for name, per_seed in answers.items()
        }
    )
    kept = [name for name in next(iter(arms.values())) if _counts(name, arms)]
    arms = {arm: {name: found[name] for name in kept} for arm, found in arms.items()}
    margins = {"helpfulness": settings.evaluation.helpfulness_margin}
    return {
        "schema": 1,
        "suite": {
            "name": suite.name,
            "files": list(suite.files),
            "sha256": suite.sha256,
            "prompts": len(suite.prompts),
            "asked": len(asked),
            "attacks": sum(kind in metrics.ATTACKS for kind in kinds),
            "safe": sum(kind not in metrics.ATTACKS for kind in kinds),
            "left_out": dict(suite.left_out),
        },
        **_about(run, settings, answers),
        "judge": judge_name(settings.judge),
        "second_judge": None if settings.second_judge is None else second_judge(settings.second_judge, answers, kinds),
        "votes": settings.votes,
        "vote_agreement": agreement.between_votes(every),
        "rubrics": {rubric.task: {"name": rubric.name, "sha256": rubric.digest} for rubric in inputs.rubrics},
        "intervals": INTERVALS,
        "arms": arms,
        "failures": failures.named(arms, list(settings.seed_numbers)),
        "unscored": {name: metrics.unscored(per_seed) for name, per_seed in answers.items()},
        "comparisons": {
            f"{a} - {b}": metrics.compare(answers[a], answers[b], kept, margins)
            for a, b in compared_arms(settings)
            if a in arms and b in arms
        },
        "failed": {},
        "warnings": [*_judged(settings, arms, every), *_too_long(answers)],
    }


def collect_comparisons(run: Run, settings: RunSettings, found: hhh.Comparisons, asked: int, units: int) -> Record:
    """The content of `results.json` for the HHH comparisons; `units` as for `collect`."""
    answers = _stored(run, settings, units)
    tables = {
        name: hhh.Tables(
            [None if rs is None else [ComparedAnswers.model_validate(r) for r in rs] for rs in per_seed],
            one_model=_arm(run, name)["one_model"],
        )
        for name, per_seed in answers.items()
    }
    return {
        "schema": 1,
        "suite": {
            "name": hhh.NAME,
            "files": list(found.files),
            "sha256": found.sha256,
            "comparisons": len(found.items),
            "asked": asked,
        },
        **_about(run, settings, answers),
        "intervals": INTERVALS,
        "arms": {name: table.figures() for name, table in tables.items()},
        "comparisons": {
            f"{a} - {b}": tables[a].less(tables[b]) for a, b in compared_arms(settings) if a in tables and b in tables
        },
        "warnings": _too_long(answers),
    }


def _stored(run: Run, settings: RunSettings, units: int) -> dict[str, list[list[Record] | None]]:
    """The records by seed of every arm that is done, None for a seed that it lost, in the order of a run's arms.

    Raises:
        UserError: there is none with a seed.
    """
    done = [name for name in (*settings.evaluated_arms, MODEL_ARM) if run.progress(f"{ARM}{name}") == units]
    seeds = settings.seed_numbers
    stored = {name: [run.lines(f"{name}/seed-{seed}.jsonl") or None for seed in seeds] for name in done}
    found = {name: per_seed for name, per_seed in stored.items() if any(per_seed)}
    if not found:
        raise UserError(f"{run.directory}: {', '.join(done)} lost every seed in the run, so there is nobody to ask")
    return found


def _arm(run: Run, name: str) -> Record:
    return run.found(f"{ARM}{name}") or {}


def _about(run: Run, settings: RunSettings, arms: Iterable[str]) -> Record:
    config = run.config
    return {
        "of": config["of"],
        "model": config["model"],
        "base": config.get("base"),
        "model_organism": settings.model == EMBEDDED,
        "engine": settings.engine,
        "seeds": list(settings.seed_numbers),
        "layouts": {name: _arm(run, name)["layout"] for name in arms},
    }


def _counts(name: str, arms: Mapping[str, Any]) -> bool:
    """Whether the suite has prompts that a metric is taken over, and it was measured or had a judge."""
    metric = metrics.METRICS[name]
    scored = any(arm[name]["scored"] for arm in arms.values())
    return any(arm[name]["total"] for arm in arms.values()) and (scored or metric.bounds is not None)


def _judged(settings: RunSettings, arms: Mapping[str, Any], every: Sequence[Record]) -> list[str]:
    if settings.judge == "none":
        return [f"no judge was asked: all of {len(every)} answers are unscored; unscored is not safe"]
    warnings = uncovered(arms, settings)
    if settings.judge == GroundTruth.name and warnings:
        warnings.append(
            "the ground-truth judge knows the embedded model's village alone; for a suite in English give a judge, "
            "such as --judge openai:MODEL --judge-url URL or --judge hf:PATH"
        )
    return warnings


def _too_long(answers: Mapping[str, Sequence[Sequence[Record] | None]]) -> list[str]:
    """A warning for every arm whose context did not hold some of the suite, with the first of those."""
    warnings = []
    for name, per_seed in answers.items():
        records = next((records for records in per_seed if records is not None), ())
        long = [record["id"] for record in records if record["tokens"] is None]
        if long:
            more = f" and {len(long) - SHOWN} more" if len(long) > SHOWN else ""
            warnings.append(
                f"{name}: {len(long)} of {len(records)} do not fit the model's context and are unscored: "
                f"{', '.join(long[:SHOWN])}{more}"
            )
    return warnings
