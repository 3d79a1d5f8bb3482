"""`cai-base evaluate` and `cai-base style`: one evaluation task, for the arms of a finished run or for any model.

Each suite is stored in a separate directory, with all answers and verdicts, all replies of a judge, and `results.json`.
Styles are stored in the run's directory, with `style.json`. Answers are stored in units: the same command continues an
interrupted evaluation and skips finished arms. Figures are computed from the stored answers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cai_base import arms, paths
from cai_base.dialogue import Chat, Dialogue
from cai_base.errors import Stopped, UserError
from cai_base.evaluation.fluency import Ruler
from cai_base.evaluation.judges.load import check_judges, load_judges
from cai_base.evaluation.tasks import LoadedArm, Task, comparisons, suite_files, suites
from cai_base.evaluation.tasks.comparisons import Comparisons, ComparisonsTask
from cai_base.evaluation.tasks.prompts import PromptsTask
from cai_base.evaluation.tasks.style_sets import style_set
from cai_base.evaluation.tasks.styles import StylesTask
from cai_base.evaluation.tasks.suite_files import STYLE
from cai_base.evaluation.tasks.suites import Suite, draw_items
from cai_base.inputs.overlap import overlap
from cai_base.progress import Progress
from cai_base.records import AskedArm, Stored
from cai_base.run.evaluation.flow import Evaluation, Files, ask
from cai_base.run.evaluation.targets import (
    JUDGING_FLAGS,
    SAMPLING_FLAGS,
    Request,
    Target,
    check_target,
    is_run,
    model_target,
    run_target,
)
from cai_base.run.identity import BEGAN, WEIGHTS, hub_commit, judge_files
from cai_base.run.results import style as style_results
from cai_base.run.results import suite as suite_results
from cai_base.run.results.shared import EvaluationContext
from cai_base.run.results.warnings import accepted_changes
from cai_base.store import MANIFEST, JsonObject, Run, check_folder_to_write, to_json
from cai_base.store.files import differences

LEAST_QUESTIONS = 3
"""With fewer questions, style and subject could hardly be told apart."""
SAMPLES, LEAST_SAMPLES, MOST_SAMPLES = 2, 2, 1000
"""The default number of answers per question and style, the smallest number for which diversity is defined, and the
largest number, because each adds an answer of every arm and seed in every style."""

Answers = Mapping[str, Sequence[Sequence[Any] | None]]
"""The stored answers of every finished arm, by seed; None for a seed that failed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """An evaluation: its task, its target, and how its results are computed.

    Attributes:
        results: the file for the figures.
        collect: computes the content of that file.
    """

    evaluation: Evaluation
    target: Target
    results: str
    collect: Callable[[EvaluationContext, Answers], Stored]

    @property
    def seeds(self) -> Sequence[int]:
        """The seeds of the target."""
        return self.target.settings.seed_numbers

    def is_done(self, arm: str) -> bool:
        """Whether all answers of an arm are stored."""
        return self.evaluation.done(arm, self.seeds) == self.evaluation.units


def evaluate(request: Request, progress: Progress) -> Path:
    """Sample and judge the answers, and write the results.

    Returns:
        The path of the results.

    Raises:
        UserError: the suite, the model or a flag has a fault.
        Stopped: the evaluation was interrupted; the same command continues it.
    """
    if request.limit is not None and request.limit < 1:
        raise UserError(f"--limit {request.limit}: must be at least 1")
    check_target(request.target)
    plan = _styles(request, progress) if request.suite == STYLE else _suite(request, progress)
    evaluation, target, run = plan.evaluation, plan.target, plan.evaluation.run
    with run.locked():
        _refuse_moved(plan)
        try:
            _ask(plan, progress)
        except Stopped as error:
            raise Stopped(f"{error}; the same command continues it") from error
        except KeyboardInterrupt:
            raise Stopped(
                f"stopped; finished work is stored in {run.directory}; the same command continues it"
            ) from None
        names = dict.fromkeys([*target.settings.evaluated_arms, *arms.named("other"), arms.MODEL.name])
        finished = {name: evaluation.stored(name, plan.seeds) for name in names if plan.is_done(name)}
        answers = {name: per_seed for name, per_seed in finished.items() if any(per_seed)}
        if not answers:
            lost = ", ".join(finished)
            raise UserError(f"{run.directory}: {lost} lost every seed in the run, so there is no model to evaluate")
        how = {name: AskedArm.model_validate(run.recorded(evaluation.work(name))) for name in answers}
        runs = [run] if target.run in (run, None) else [target.run, run]
        accepted = [warning for one in runs if one is not None for warning in accepted_changes(one)]
        settings = target.settings
        context = EvaluationContext(
            target=target.about,
            model=settings.model,
            engine=settings.engine,
            data=settings.data,
            seeds=plan.seeds,
            judges=settings.judge_choices,
            evaluation=settings.evaluation,
            inputs=target.inputs,
            arms=how,
            accepted=accepted,
        )
        content = plan.collect(context, answers)
        own = {name for arm in answers for name in evaluation.files.names(arm, plan.seeds)}
        complete = sorted(own & {*run.files})
        run.commit(Path(plan.results).stem, 1, write={plan.results: to_json(content.dump())}, complete=complete)
    return run.directory / plan.results


def _ask(plan: Plan, progress: Progress) -> None:
    """Evaluate every arm that has not answered all items of the task."""
    evaluation, target = plan.evaluation, plan.target
    task, run, settings = evaluation.task, evaluation.run, target.settings
    missing = [name for name in target.names if not plan.is_done(name)]
    if not missing:
        return
    choices = settings.judge_choices if task.judged else {}
    check_judges(choices, progress)
    judges = load_judges(choices, target.inputs.rubrics, run.directory, progress)
    for arm in target.load(missing):
        _record_arm(run, evaluation.work(arm.name), arm, target.hub)
        of_arm = evaluation
        if isinstance(task, PromptsTask) and not choices["judge"].judge.kind.reads_language:
            ruler = Ruler(arm.engine, Dialogue(target.inputs.few_shot, ()), elsewhere=True)
            of_arm = replace(evaluation, task=replace(task, ruler=ruler if _samples_the_base(target, arm) else None))
        ask(of_arm, arm, settings.evaluation, judges, progress, evaluation.done(arm.name, plan.seeds))


def _samples_the_base(target: Target, arm: LoadedArm) -> bool:
    """Whether the arm's engine has the run's base model, which measures how likely its answers are."""
    return target.run is not None and not isinstance(arm.layout, Chat)


def _refuse_moved(plan: Plan) -> None:
    """Raises UserError if the hub's cache has another commit of the model than the one that answered."""
    evaluation, hub = plan.evaluation, plan.target.hub
    commit = None if hub is None else hub_commit(hub)
    for name in plan.target.names:
        stored = evaluation.run.recorded(evaluation.work(name))
        if stored is not None and None not in (commit, stored.get("commit")) and stored["commit"] != commit:
            raise UserError(
                f"{evaluation.run.directory}: commit {stored['commit']} of {hub} answered, and the cache has {commit} "
                "now; give another --out"
            )


def _record_arm(run: Run, work: str, arm: LoadedArm, hub: str | None) -> None:
    """Store the layout and the weights' hash of an arm, or check that they are those of an earlier process."""
    about = AskedArm(
        layout="chat template" if isinstance(arm.layout, Chat) else "few-shot dialogue",
        seeds=tuple(arm.models),
        context=arm.engine.context_length,
        weights=arm.engine.findings().model,
        one_model=len(set(arm.models.values())) == 1,
        notes=arm.notes,
        commit=None if hub is None else hub_commit(hub),
    )
    stored = run.recorded(work)
    if stored is not None and stored["weights"] != about.weights:
        raise UserError(
            f"{run.directory}: the weights of {arm.name} changed since this evaluation began; restore the old "
            "weights, or give another --out"
        )
    run.record_on_commit(work, about.dump)


# Suites


def _suite(request: Request, progress: Progress) -> Plan:
    """The plan of a suite of prompts or of comparisons, in a separate directory."""
    for flag in ("questions", "samples"):
        if flag in request.own:
            raise UserError(f"--{flag} {request.own[flag]}: applies only to --suite {STYLE}; leave it out")
    progress.say(f"Reading the suite {request.suite}")
    suite = _read(request)
    progress.say(f"Suite {suite.name}: {', '.join(suite.files)}, SHA-256 {suite.sha256}")
    task: Task[Any, Any]
    collect: Callable[..., Stored]
    if isinstance(suite, Comparisons):
        for flag in sorted((request.run_flags & JUDGING_FLAGS) - request.needless):
            raise UserError(f"--{flag}: {suite.name} compares log-probabilities and has no judge; leave it out")
        for reason, count in suite.left_out.items():
            progress.say(f"Left out {count} rows of {suite.files[0]}: {reason}")
        task = ComparisonsTask(draw_items(suite.items, request.limit))
        collect = partial(suite_results.collect_comparisons, suite=suite)
    else:
        for line in suite.ignored:
            progress.say(line)
        task = PromptsTask(draw_items(suite.prompts, request.limit))
        collect = partial(suite_results.collect, suite=suite)
    name = _slug(suite.name)
    if is_run(request.target):
        target = run_target(request, {*JUDGING_FLAGS, *SAMPLING_FLAGS}, progress)
        place = target.folder / name
    else:
        target = model_target(request, name, progress, judged=task.judged)
        place = target.folder
    # As the store keeps and compares it. Its settings are those of a run under their own names: a type of its own would
    # define each a second time.
    config: JsonObject = {
        **target.about.dump(),
        "suite": {"name": name, "files": list(suite.files), "sha256": suite.sha256},
        "limit": request.limit,
        WEIGHTS: target.weights,
    }
    if target.asked_with:
        config["asked with"] = target.asked_with
    if task.judged:
        settings = target.settings.model_dump(mode="json", by_alias=True)
        config |= {flag: settings[flag] for flag in sorted({*JUDGING_FLAGS, "evaluation"} - {"rubric"})}
        config["rubrics"] = {rubric.task: rubric.digest for rubric in target.inputs.rubrics}
        config["judge files"] = judge_files(target.settings.judge_choices)
    run = _directory(request.out or place, config, explicit=request.out is not None)
    files = Files(lambda seed, arm, part: paths.suite_answers(seed, arm))
    evaluation = Evaluation(task, run, lambda arm: f"arm {arm}", files)
    return Plan(evaluation, target, paths.RESULTS, partial(collect, items=task.items))


def _read(request: Request) -> Suite | Comparisons:
    name, files = suite_files.locate(request.suite)
    if name in comparisons.NAMES or (name is None and comparisons.recognised(files[0])):
        return comparisons.read(files[0], name)
    return suites.read(name, files)


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name)


def _directory(place: Path, config: JsonObject, *, explicit: bool) -> Run:
    """The directory of the evaluation: an existing one with this configuration, or a new one.

    Raises:
        UserError: `--out` names a directory with other contents, or a place where none can be made.
    """
    if explicit:
        check_folder_to_write(place)
    number, candidate = 1, place
    while candidate.exists():
        if (candidate / MANIFEST).is_file():
            stored = Run.open(candidate, computed=(paths.RESULTS,))
            names = [name for name, _, _ in differences(stored.config, config)]
            if BEGAN not in (stored.config.get(WEIGHTS) or {}):  # of a version that did not store it
                names = [name for name in names if name != f"{WEIGHTS}.{BEGAN}"]
            field = next(iter(names), None)
            if field is None:
                return stored
            if explicit:
                raise UserError(
                    f"--out {candidate}: has another evaluation, whose {field} is not that of this one; give another "
                    "--out"
                )
        if explicit:
            raise UserError(f"--out {candidate}: has files that are not of this evaluation; give another directory")
        number += 1
        candidate = place.with_name(f"{place.name}-{number}")
    return Run.create(candidate, config, {})


# Styles


def _styles(request: Request, progress: Progress) -> Plan:
    """The plan of the thirteen styles, in the directory of the run whose arms are evaluated."""
    if not is_run(request.target):
        raise UserError(f"{request.target}: is not a run; styles are evaluated for the arms of a finished run only")
    for flag in ("limit", "out"):
        if flag in request.own:
            raise UserError(
                f"--{flag} {request.own[flag]}: does not apply to --suite {STYLE}, which takes --questions, --samples"
            )
    target = run_target(request, {"threads"}, progress)
    run = target.run
    assert run is not None
    task = _styles_task(target, request.questions, SAMPLES if request.samples is None else request.samples)
    if request.arms is None:  # a null arm repeats another arm with other random draws: its answers add only noise
        target = replace(target, names=[name for name in target.names if not arms.arm(name).null_of])
    files = Files(lambda seed, arm, part: paths.styled_answers(seed, arm))
    evaluation = Evaluation(task, run, lambda arm: f"style of {arm}", files)
    return Plan(evaluation, target, paths.STYLE, partial(style_results.collect, task=task))


def _styles_task(target: Target, questions: int | None, samples: int) -> StylesTask:
    """The task of the styles. Raises UserError if there are too few questions that the run was not trained on."""
    settings, inputs = target.settings, target.inputs
    styles = style_set(settings.data)
    count = styles.usual_questions if questions is None else questions
    if count < LEAST_QUESTIONS:
        raise UserError(f"--questions {count}: must be at least {LEAST_QUESTIONS}")
    if samples > MOST_SAMPLES:
        raise UserError(f"--samples {samples}: must be at most {MOST_SAMPLES}: each is another answer in every style")
    if samples < LEAST_SAMPLES:
        raise UserError(
            f"--samples {samples}: must be at least {LEAST_SAMPLES}, because diversity is measured between samples"
        )
    trained = [prompt.text for prompt in inputs.prompts]
    trained += [example.prompt for example in (*inputs.examples, *inputs.few_shot)]
    trained += [example.prompt for example in inputs.critique_examples]
    excluded = {name for name, _ in overlap(styles.questions, dict(enumerate(trained)))}
    free = {name: text for name, text in styles.questions.items() if name not in excluded}
    if count > len(free):
        why = f" that the run was not trained on, of {len(styles.questions)}" if excluded else ""
        raise UserError(f"--questions {count}: there are {len(free)} neutral questions{why}; ask for at most that many")
    return StylesTask(styles, dict(list(free.items())[:count]), samples)
