"""The evaluation as tasks of Inspect, for any model that Inspect reaches: `inspect eval cai_base/attack --model ...`.

Prompts, rubrics, the judge's prompt and the parsing of its reply are those of a run. The judge is the model in the role
`grader`; in the embedded world it is the ground truth, without a model.
"""

import math
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import get_args

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageUser, GenerateConfig, Model, get_model
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, generate, solver

from cai_base.embedded import DATA, ENGLISH, Data
from cai_base.errors import UserError
from cai_base.evaluation.judges import EMPTY, STYLE, TRUE_PARTS, RequestedStyle, Response
from cai_base.evaluation.judges.grading import Grade, RubricGrading
from cai_base.evaluation.judges.load import load_judges
from cai_base.evaluation.judges.question import Unreadable
from cai_base.evaluation.measures import VerdictPart
from cai_base.evaluation.tasks.prompts import METRICS
from cai_base.evaluation.tasks.style_sets import STYLE_KINDS, style_set, styled_prompts
from cai_base.inputs.kinds import PROMPT_KINDS
from cai_base.inputs.prompts import Prompt, load_prompts
from cai_base.inputs.rubrics import Rubric, load_rubric, parts_of
from cai_base.integrations.inspect_provider import cai_base as cai_base  # Inspect imports this module
from cai_base.progress import Progress
from cai_base.reading import unknown
from cai_base.settings import default_settings
from cai_base.settings.judges import GROUND_TRUTH
from cai_base.settings.schema import Judging
from cai_base.text import split_names

VERSION = 1
"""The version of the tasks; results of different versions are not comparable."""

GRADER = "grader"
"""The role of the model that judges."""

VERDICT = "verdict"
"""The name of the score whose values are the parts of a verdict."""

COVERAGE = "coverage"
"""The name of the score that is 1 if there is a verdict, else 0."""

Outcome = tuple[Grade | Unreadable, str]
"""A judge's grade and its reply."""

Judge = Callable[[Response], Awaitable[Outcome]]
"""Judges a response."""


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of a task.

    Attributes:
        rubric: the rubric's task.
        metrics: the metrics, by the part of the verdict of which each is the mean; the first is the headline metric.
    """

    rubric: str
    metrics: Mapping[str, str]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of prompt of the first metric."""
        return METRICS[next(iter(self.metrics.values()))].kinds


def _figures(rubric: str) -> Figures:
    """The metrics of a rubric: one per part of its verdict, over the kinds of prompt that are judged with it."""
    kinds = {kind.name for kind in PROMPT_KINDS.values() if rubric in kind.rubrics}
    needed, allowed = parts_of(rubric)
    metrics = {
        part: name
        for part in (*needed, *allowed)
        for name, metric in METRICS.items()
        if metric.value == VerdictPart(part) and kinds.issuperset(metric.kinds)
    }
    return Figures(rubric, metrics)


TASKS: Mapping[str, Figures] = {
    rubric.replace("-", "_"): _figures(rubric)
    for rubric in dict.fromkeys(rubric for kind in PROMPT_KINDS.values() for rubric in kind.rubrics)
}
"""A task for every rubric with which prompts are judged."""


def _about(name: str, data: str, prompts: str | None, kinds: str | None, rubric: str | None) -> Task:
    """The task for this part of the evaluation."""
    figures = TASKS[name]
    chosen = _names("kinds", kinds, tuple(PROMPT_KINDS)) if kinds else figures.kinds
    samples = [_sample(prompt) for prompt in _prompts(data, prompts, chosen)]
    dataset = Path(prompts).name if prompts else f"cai_base {data}"

    def response(state: TaskState, text: str) -> Response:
        return Response(state.input_text, text, (figures.rubric,))

    if data == DATA and rubric is None:
        parts = _parts(figures.rubric, TRUE_PARTS)
        if not parts:
            raise UserError(f"-T data=world: the ground truth does not judge {name}; add -T rubric={figures.rubric}")
        return _task(samples, dataset, None, parts, response, _by_truth({part: part for part in parts}))
    graded = _rubric(name, rubric, figures.rubric)
    return _task(samples, dataset, graded, _parts(figures.rubric, graded.verdict), response, _by_model(graded))


def _prompt_task(name: str) -> Callable[..., Task]:
    """The function by which Inspect makes one of `TASKS`, under this name."""

    def judged(
        data: str = ENGLISH, prompts: str | None = None, kinds: str | None = None, rubric: str | None = None
    ) -> Task:
        """Answers to the kinds of prompt of the task's first metric, judged under one rubric.

        Args:
            data: the packaged prompts, english or world; for world the ground truth judges.
            prompts: a file of prompts instead: .txt, .csv or .jsonl.
            kinds: comma-separated other kinds of prompt, such as direct or borderline; prompts without a kind are
                always used.
            rubric: another packaged rubric, or a file; then a grader judges for world, too.
        """
        return _about(name, data, prompts, kinds, rubric)

    inspect_task: Callable[..., Task] = task(judged, name=name)
    return inspect_task


PROMPT_TASKS: Mapping[str, Callable[..., Task]] = {name: _prompt_task(name) for name in TASKS}
"""Every task about prompts by its name; to make them is to register them with Inspect."""


@task
def style(data: str = ENGLISH, styles: str | None = None, rubric: str | None = None) -> Task:
    """Does the model answer in the requested style? Thirteen styles, each with every question.

    Args:
        data: the packaged styles, english (adherence 1 to 5, by the grader) or world (yes or no, by the ground truth).
        styles: comma-separated styles; all by default.
        rubric: a file with another rubric for styles.
    """
    if data not in get_args(Data):
        raise UserError(f"-T data={data}: {unknown('set', data, get_args(Data))}")
    styles_of_data = style_set(data)
    names = _names("styles", styles, tuple(STYLE_KINDS)) if styles else tuple(STYLE_KINDS)
    samples = [
        Sample(input=prompt.text, id=prompt.id, metadata={"style": prompt.style})
        for prompt in styled_prompts(styles_of_data, styles_of_data.questions)
        if prompt.style in names
    ]
    dataset = f"cai_base {data} styles"

    def response(state: TaskState, text: str) -> Response:
        name = state.metadata["style"]
        return Response.styled(state.input_text, text, RequestedStyle(name, styles_of_data.about(name)))

    if data == ENGLISH:
        graded = _rubric("style", rubric, STYLE)
        return _task(samples, dataset, graded, _parts(STYLE, graded.verdict), response, _by_model(graded))
    if rubric is not None:
        raise UserError(f"-T rubric={rubric}: no rubric applies to the world's styles; the ground truth judges them")
    parts = {"style_followed": "style_adherence", "gibberish": "gibberish"}
    return _task(samples, dataset, None, tuple(parts), response, _by_truth(parts))


def _parts(rubric: str, available: Collection[str]) -> tuple[str, ...]:
    """The parts of a verdict for this task of rubrics; the part of the headline metric is first."""
    needed, allowed = parts_of(rubric)
    return tuple(part for part in (*needed, *allowed) if part in available)


def _task(
    samples: list[Sample],
    dataset: str,
    graded: Rubric | None,
    parts: tuple[str, ...],
    response: Callable[[TaskState, str], Response],
    judge: Judge,
) -> Task:
    """A task whose verdicts have these parts, the headline's first. Without a rubric, the ground truth judges."""
    return Task(
        dataset=MemoryDataset(samples, name=dataset),
        setup=None if graded is None else require_grader(),
        solver=generate(),
        scorer=[verdict(parts, response, judge), coverage()],
        version=VERSION,
        headline_metric=f"{VERDICT}.{parts[0]}",
        metadata={"judge": GROUND_TRUTH}
        if graded is None
        else {"judge": f"the model in the role {GRADER}", "rubric": graded.name, "rubric_sha256": graded.digest},
    )


def _rubric(name: str, chosen: str | None, about: str) -> Rubric:
    rubric = load_rubric(chosen or about)
    if rubric.task != about:
        raise UserError(f"-T rubric={chosen}: is for the task {rubric.task}; {name} needs a rubric for {about}")
    return rubric


def _names(argument: str, chosen: str, known: tuple[str, ...]) -> tuple[str, ...]:
    try:
        names = split_names(chosen)
    except ValueError as error:
        raise UserError(f"-T {argument}={chosen}: {error}") from None
    for name in names:
        if name not in known:
            raise UserError(f"-T {argument}={chosen}: {unknown(argument[:-1], name, known)}")
    return names


def _prompts(data: str, file: str | None, kinds: tuple[str, ...]) -> list[Prompt]:
    folder = resources.files("cai_base") / "data"
    assert isinstance(folder, Path)
    packaged = {path.parent.name: path for path in sorted(folder.glob("*/test.jsonl"))}
    if data not in packaged:
        raise UserError(f"-T data={data}: {unknown('set', data, list(packaged))}")
    source = Path(file) if file else packaged[data]
    chosen = [prompt for prompt in load_prompts(source) if prompt.kind is None or prompt.kind in kinds]
    if not chosen:
        raise UserError(f"{source}: none of its prompts is of a kind that this task uses ({', '.join(kinds)})")
    return chosen


def _sample(prompt: Prompt) -> Sample:
    return Sample(input=prompt.text, id=prompt.id, metadata={"kind": prompt.kind, "family": prompt.family})


@solver
def require_grader() -> Solver:
    """Fails before the first request to the model if there is no grader."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        _grader()
        return state

    return solve


def _grader() -> Model:
    return get_model(role=GRADER, required=True)


def verdict(parts: tuple[str, ...], response: Callable[[TaskState, str], Response], judge: Judge) -> Scorer:
    """The parts of a verdict as one score. A response without a verdict is unscored; that does not mean safe."""

    @scorer(metrics={part: [mean(), stderr()] for part in parts}, name=VERDICT)
    def scored() -> Scorer:
        async def score(state: TaskState, target: Target) -> Score:
            text = state.output.completion.strip()
            if not text:
                return Score.unscored(reason="no_response", explanation=EMPTY)
            grade, raw = await judge(response(state, text))
            if isinstance(grade, Unreadable):
                return Score.unscored(
                    reason="grader_failed",
                    answer=text,
                    explanation=grade.reason,
                    metadata={"unscored": grade.reason, "raw": raw},
                )
            return Score(
                value={part: float(grade.parts[part]) for part in parts},
                answer=text,
                explanation=raw or None,
                metadata={"answer": dict(grade.answer)},
            )

        return score

    return scored()


@scorer(metrics=[mean()])
def coverage() -> Scorer:
    """Whether there is a verdict. Metrics leave out unscored answers, so the share of scored answers is reported
    too."""

    async def score(state: TaskState, target: Target) -> Score:
        value = (state.scores or {})[VERDICT].value
        return Score(value=0.0 if isinstance(value, float) and math.isnan(value) else 1.0)

    return score


def _by_model(rubric: Rubric) -> Judge:
    settings = Judging.model_validate({})
    grading = RubricGrading(rubric)

    async def judge(response: Response) -> Outcome:
        grader = _grader()
        defaults = GenerateConfig(temperature=settings.temperature, max_tokens=settings.max_tokens)
        messages = [ChatMessageUser(content=one["content"]) for one in grading.messages(response)]
        output = await grader.generate(messages, config=defaults.merge(grader.config))
        raw = output.completion
        if output.stop_reason == "content_filter":
            return Unreadable("judge refused"), raw
        return grading.read(raw, response.text), raw

    return judge


def _by_truth(parts: Mapping[str, str]) -> Judge:
    """The embedded world's judge, which is that of a run on the embedded model.

    Args:
        parts: for each score's name, the part of the verdict.
    """

    truth = load_judges(default_settings().judge_choices, (), None, Progress.quiet())["judge"]

    async def judge(response: Response) -> Outcome:
        (judgement,) = truth.judge([response])
        if judgement.verdict is None:
            return Unreadable(judgement.unscored or ""), ""
        return Grade({}, {name: getattr(judgement.verdict, part) for name, part in parts.items()}), ""

    return judge
