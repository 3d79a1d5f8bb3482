"""Computes `results.json` from the stored files of a finished run, and writes it. Equal runs give equal bytes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from cai_base import paths
from cai_base.arms import ARMS, BASE, BASELINE, INSTRUCT
from cai_base.errors import UserError
from cai_base.evaluation import fluency, judge_errors, metrics
from cai_base.evaluation.scoring import Scorer
from cai_base.evaluation.tasks.pairwise import PairwiseTask
from cai_base.evaluation.tasks.prompts import CURVES
from cai_base.inputs import Inputs
from cai_base.method import losses
from cai_base.method.pairs import NO_PAIRS
from cai_base.reading import read_record
from cai_base.records import (
    ATTACK,
    Chain,
    ConstitutionUsed,
    CurvePoint,
    FeedbackFigures,
    Floor,
    Fluency,
    JudgeLabels,
    Judgement,
    PairwiseFigures,
    PairwiseVerdict,
    Results,
    Spending,
    TrainingStep,
    TwoResponses,
    Unseen,
)
from cai_base.run.results import shared as shared_results
from cai_base.run.results import warnings
from cai_base.run.results.method_figures import control, feedback_figures, revision_figures
from cai_base.run.stored import each_answer, each_record, records_of
from cai_base.settings.choices import InstructChoice
from cai_base.settings.judges import NO_JUDGE
from cai_base.settings.schema import SELF, RunSettings
from cai_base.store import CONFIG, Run, to_json, write_atomic


class _Further(TypedDict, total=False):
    """What most runs do not have, and do not store."""

    interpreter: str
    feedback: Mapping[str, FeedbackFigures]
    judge_labels: JudgeLabels
    pairwise: Mapping[str, PairwiseFigures]
    unseen: Unseen


def write(
    run: Run, settings: RunSettings, inputs: Inputs, failed: Mapping[str, Mapping[int, str]], spent: Spending
) -> None:
    """Write `results.json`, and beside it `usage.json`, on which no result depends.

    Args:
        failed: as for `collect`.
        spent: what the run has taken.
    """
    tokens = _tokens(run, settings.seed_numbers, settings.evaluated_arms)
    usage = {**run.usage, "tokens": tokens, "spent": spent.dump()}
    write_atomic(run.directory / paths.USAGE, to_json(usage))
    content = to_json(collect(run, settings, inputs, failed).dump())
    run.commit("results", 1, write={paths.RESULTS: content}, complete=run.files)


def collect(run: Run, settings: RunSettings, inputs: Inputs, failed: Mapping[str, Mapping[int, str]]) -> Results:
    """The content of `results.json`.

    Args:
        failed: for each phase (by its folder's name), the failed seeds with their reasons.
    """
    seeds = list(settings.seed_numbers)
    kinds = [str(prompt.kind) for prompt in inputs.evaluation_prompts]
    floor = base_floor(run, seeds)
    scorer = Scorer(floor)
    answers = {
        name: [scorer.each(each_answer(run, seed, name)) or None for seed in seeds] for name in settings.evaluated_arms
    }
    judged = shared_results.judged(
        settings.judge_choices,
        settings.evaluation,
        inputs.rubrics,
        seeds,
        answers,
        kinds,
        lambda name: ARMS[name].one_model,
    )
    revision = revision_figures(run, seeds, settings.revision.rounds, settings.interpreter_model)
    labelled = [arm for name in settings.evaluated_arms if (arm := ARMS[name]).source == "comparisons"]
    from_another = [arm for arm in settings.evaluated_arms if ARMS[arm].folder and ARMS[arm].starts_from != BASE]
    further = _Further()
    if settings.interpreter != SELF:
        further["interpreter"] = Path(settings.interpreter).name
    if labelled:
        further["feedback"] = {
            arm.name: feedback_figures(run, arm, seeds, settings.feedback.principles, inputs) for arm in labelled
        }
    each = each_record(run, paths.PAIRWISE, PairwiseVerdict)
    compared = [one.model_copy(update={"votes": ()}) for one in each]
    if compared:
        task = PairwiseTask.of(settings.evaluated_arms, seeds, inputs.evaluation_prompts)
        further["pairwise"] = task.figures(compared)
    if inputs.labels is not None:
        labels = judge_errors.judge_labels(inputs.labels, records_of(run, paths.JUDGE_LABELS, Judgement))
        further["judge_labels"] = labels
        judged["arms"] = {name: judge_errors.correct(one, labels) for name, one in judged["arms"].items()}
        judged["comparisons"] = {pair: judge_errors.correct(one, labels) for pair, one in judged["comparisons"].items()}
    if inputs.unseen_families:
        further["unseen"] = shared_results.unseen(answers, inputs.unseen_families)
    return Results(
        **further,
        **shared_results.head(settings.model, settings.seed_numbers),
        **judged,
        engine=settings.engine,
        instruct=_instruct_name(settings.instruct_model) if INSTRUCT in settings.evaluated_arms else None,
        protocol=settings.protocol,
        controls={
            name: control(
                run, ARMS[name], seeds, settings.sft.refusals, settings.revision, settings.interpreter_model, inputs
            )
            for name in settings.controls
        },
        constitution=ConstitutionUsed(
            name=inputs.constitution.name,
            principles=len(inputs.constitution.principles),
            sha256=inputs.constitution.digest,
        ),
        losses={
            name: loss
            for name in settings.evaluated_arms
            if (loss := losses.arm_loss(settings.dpo, ARMS[name])) is not None
        },
        fluency=Fluency(floor=floor, quantile=fluency.QUANTILE, margin=fluency.MARGIN, opening_tokens=fluency.OPENING),
        revision=revision,
        curves=_curves(run, settings.training_steps, settings.seed_numbers, settings.evaluate_every, answers),
        failed={phase: {str(seed): why for seed, why in reasons.items()} for phase, reasons in failed.items()},
        warnings=tuple(
            warnings.protocol_first(
                [
                    *warnings.accepted_changes(run),
                    *warnings.uncovered(judged["arms"], judged=settings.judge != NO_JUDGE),
                    *warnings.stored_warnings(run),
                    *warnings.at_the_floor(judged["arms"][BASELINE][ATTACK].mean),
                    *warnings.no_safer_revisions(revision.harmful_by_round),
                    *warnings.useless_revisions(revision.helpful_by_round),
                    *warnings.unrelated_answers(judged["arms"]),
                    *warnings.filtered_chains(revision),
                    *warnings.same_weights(run.directory, from_another, seeds),
                    *warnings.differs_from_itself(judged["comparisons"]),
                    *warnings.failed_seeds(failed),
                ]
            )
        ),
    )


def refuse_lost_arms(directory: Path) -> None:
    """Raise UserError if every seed of an arm failed, according to a finished run's `results.json` and `config.json`.

    The results and pages of the other arms remain. The exit code is 2: there is nothing to resume (3), a program that
    requested the arm must notice (not 0), and the cause is a setting, not a defect (1).
    """
    remedy = "use the version of cai-base that made the run"
    results = read_record(directory / paths.RESULTS, Results, "the results of a run", remedy)
    settings = read_record(directory / CONFIG, RunSettings, "the settings of a run", remedy)
    for arm in ARMS.values():
        reasons = results.failed.get(arm.folder or "", {})
        if arm.section is None or len(reasons) < len(results.seeds):
            continue
        lost = f"there is no arm {arm.name!r}; the earlier phases are in {directory}"
        if set(reasons.values()) == {NO_PAIRS}:
            raise UserError(
                f"{arm.folder}: no seed had a preference pair to train on, so {lost}. Every chain was filtered: see "
                "`revision` in results.json, and start a new run with other prompts, lengths or another model"
            )
        rate = settings.training(arm.section).learning_rate
        failures = "; ".join(f"seed {seed}: {reason}" for seed, reason in reasons.items())
        raise UserError(
            f"--{arm.section.replace('_', '-')}.learning-rate {rate:g}: every seed failed in {arm.folder} "
            f"({failures}), so {lost}. Start a new run with a lower learning rate"
        )


def _tokens(run: Run, seeds: Sequence[int], evaluated: Sequence[str]) -> dict[str, dict[str, int]]:
    """Tokens trained on or sampled, by phase and seed, for `usage.json`. A prefix shared in a batch counts once."""
    arms = [arm for arm in ARMS.values() if arm.group != "control" or arm.name in evaluated]
    trained = {
        arm.folder: {
            str(seed): sum(step.tokens for step in each_record(run, paths.metrics(seed, arm.folder), TrainingStep))
            for seed in seeds
        }
        for arm in arms
        if arm.folder is not None
    }
    owners = [arm.folder if arm.control else None for arm in arms if arm.constitution is not None]
    chains = {
        str(seed): sum(
            chain.sampled_tokens for owner in owners for chain in each_record(run, paths.chains(seed, owner), Chain)
        )
        for seed in seeds
    }
    compared = {
        f"responses of {arm.folder}": {
            str(seed): sum(
                two.sampled_tokens for two in each_record(run, paths.responses(seed, arm.owner), TwoResponses)
            )
            for seed in seeds
        }
        for arm in arms
        if arm.source in ("responses", "comparisons") and arm.name in evaluated
    }
    return {**trained, "revision": chains, **compared}


def _instruct_name(instruct: InstructChoice) -> str:
    return Path(instruct.model).name if instruct.model else f"the {instruct.base.model}'s instruct sibling"


def _curves(
    run: Run, steps: Mapping[str, int], seeds: Sequence[int], every: int, answers: Mapping[str, metrics.PerSeed]
) -> dict[str, tuple[CurvePoint, ...]]:
    """The curves by training phase (its folder's name): the metrics of the phase's arm at each evaluated step.

    Args:
        steps: the number of training steps of each arm.
        every: steps between evaluations.
        answers: of every evaluated arm, by seed.
    """
    curves, scorer = {}, Scorer(None)
    for name, last in steps.items():
        arm = ARMS[name]
        if arm.curve and arm.folder is not None:
            evaluated = sorted({*range(0, last, every), last})
            before = answers.get(arm.starts_from) or [
                scorer.each(each_answer(run, seed, arm.starts_from)) or None for seed in seeds
            ]
            curves[arm.folder] = _curve(run, seeds, evaluated, name, (before, answers[name]))
    return curves


def _curve(
    run: Run, seeds: Sequence[int], evaluated: Sequence[int], arm: str, ends: tuple[metrics.PerSeed, metrics.PerSeed]
) -> tuple[CurvePoint, ...]:
    """The arm's metrics at step 0, at each evaluation and at the last step.

    All points are over the same seeds, those that finished: a seed that fails midway would cause a jump in the curve
    without any change of a model.

    Args:
        ends: by seed, the answers of the arm that it starts from, and its own at its last step.
    """
    finished = [place for place, of_seed in enumerate(ends[1]) if of_seed]
    scorer, points = Scorer(None), []
    for step in evaluated:
        if step in (0, evaluated[-1]):
            of_step = [ends[step != 0][place] for place in finished]
        else:
            of_step = [scorer.each(each_answer(run, seeds[place], arm, step)) or None for place in finished]
        figures = metrics.figures(of_step, names=CURVES)
        means = {metric: figures[metric].mean for metric in CURVES}
        points.append(CurvePoint.model_validate({"step": step, **means}))
    return tuple(points)


def base_floor(run: Run, seeds: Sequence[int]) -> Floor | None:
    """The floor that the base model's own answers in a run set."""
    every = (answer for seed in seeds for answer in each_answer(run, seed, BASE))
    return fluency.floor(map(fluency.likelihood, every))
