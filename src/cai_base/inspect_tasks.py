"""The evaluation as tasks of Inspect, for any model that Inspect reaches: `inspect eval cai_base/attack --model ...`.

Prompts, rubrics, the words that a judge is asked and the reading of its answer are those of a run. The judge is the
model in the role `grader`; in the embedded world it is the ground truth, and no model is asked.
"""

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import get_args

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageUser, GenerateConfig, Model, get_model
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, generate, solver

from cai_base import rubrics
from cai_base._validation import unknown
from cai_base.config import Judging
from cai_base.errors import UserError
from cai_base.evaluation.asking import Unreadable
from cai_base.evaluation.grading import ByRubric, Grade
from cai_base.evaluation.judges import EMPTY, GroundTruth
from cai_base.evaluation.metrics import METRICS
from cai_base.prompts import Kind, Prompt, load_prompts
from cai_base.rubrics import TASK_PARTS, Rubric, load_rubric

VERSION = 1
"""Of the tasks: results of different versions are not to be compared."""

GRADER = "grader"
"""The role of the model that judges."""

VERDICT = "verdict"
"""The score whose values are the parts of a verdict."""

COVERED = "coverage"
"""The score that is 1 where there is a verdict, else 0."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a task asks.

    Attributes:
        rubric: the rubrics' task whose answers it wants.
        metrics: the figures of a run that it gives, by the part of the verdict that each is the mean of; the first is
            the one that sums it up.
    """

    rubric: rubrics.Task
    metrics: Mapping[str, str]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of prompt that the first figure is over."""
        return METRICS[next(iter(self.metrics.values()))].kinds


TASKS: Mapping[str, Asked] = {
    "attack": Asked("attack", {"complied": "attack_success_rate", "refused": "refusal_rate", "harm": "harm"}),
    "helpfulness": Asked("helpfulness", {"helpfulness": "helpfulness"}),
    "over_refusal": Asked("over-refusal", {"refused": "over_refusal_rate"}),
}


@task
def attack(
    data: str = "english", prompts: str | None = None, kinds: str | None = None, rubric: str | None = None
) -> Task:
    """Does the model comply with harmful requests? Asks the jailbreak prompts.

    Args:
        data: whose prompts, english or world; in the world the ground truth judges.
        prompts: a file of prompts instead, .txt, .csv or .jsonl.
        kinds: which kinds of prompt instead, with commas, such as direct or borderline; a prompt without a kind is
            always asked.
        rubric: a packaged rubric or a file instead of the packaged one; then a grader judges in the world as well.
    """
    return _task("attack", data, prompts, kinds, rubric)


@task
def helpfulness(
    data: str = "english", prompts: str | None = None, kinds: str | None = None, rubric: str | None = None
) -> Task:
    """How helpful is the model, from 1 to 5? Asks the benign prompts; arguments as for `attack`."""
    return _task("helpfulness", data, prompts, kinds, rubric)


@task
def over_refusal(
    data: str = "english", prompts: str | None = None, kinds: str | None = None, rubric: str | None = None
) -> Task:
    """Does the model decline harmless requests? Asks the benign and the sensitive; arguments as for `attack`."""
    return _task("over_refusal", data, prompts, kinds, rubric)


def _task(name: str, data: str, prompts: str | None, kinds: str | None, rubric: str | None) -> Task:
    asked = TASKS[name]
    graded = None if data == "world" and rubric is None else load_rubric(rubric or asked.rubric)
    if graded is not None and graded.task != asked.rubric:
        raise UserError(f"-T rubric={rubric}: it is for the task {graded.task}; {name} needs one for {asked.rubric}")
    samples = [_sample(prompt) for prompt in _prompts(data, prompts, _kinds(kinds) if kinds else asked.kinds)]
    return Task(
        dataset=MemoryDataset(samples, name=Path(prompts).name if prompts else f"cai_base {data}"),
        setup=None if graded is None else grader_is_there(),
        solver=generate(),
        scorer=[_verdict(asked, graded), coverage()],
        version=VERSION,
        headline_metric=f"{VERDICT}.{next(iter(asked.metrics))}",
        metadata={"judge": GroundTruth.name}
        if graded is None
        else {"judge": f"the model in the role {GRADER}", "rubric": graded.name, "rubric_sha256": graded.digest},
    )


def _kinds(chosen: str) -> tuple[str, ...]:
    kinds = tuple(kind.strip() for kind in chosen.split(","))
    for kind in kinds:
        if kind not in get_args(Kind):
            raise UserError(f"-T kinds={chosen}: {unknown('kind', kind, get_args(Kind))}")
    return kinds


def _prompts(data: str, file: str | None, kinds: tuple[str, ...]) -> list[Prompt]:
    folder = resources.files("cai_base") / "data"
    assert isinstance(folder, Path)
    packaged = {path.parent.name: path for path in sorted(folder.glob("*/test.jsonl"))}
    if data not in packaged:
        raise UserError(f"-T data={data}: {unknown('set', data, list(packaged))}")
    source = Path(file) if file else packaged[data]
    found = [prompt for prompt in load_prompts(source) if prompt.kind is None or prompt.kind in kinds]
    if not found:
        raise UserError(f"{source}: none of its prompts is of a kind that is asked ({', '.join(kinds)})")
    return found


def _sample(prompt: Prompt) -> Sample:
    return Sample(input=prompt.text, id=prompt.id, metadata={"kind": prompt.kind, "family": prompt.family})


@solver
def grader_is_there() -> Solver:
    """Notices that no grader was given before the model is asked anything."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        _grader()
        return state

    return solve


def _grader() -> Model:
    return get_model(role=GRADER, required=True)


def _verdict(asked: Asked, rubric: Rubric | None) -> Scorer:
    """The scorer of a task, with metrics for the parts that this judge gives; no rubric stands for the ground truth."""
    needed, allowed = TASK_PARTS[asked.rubric]
    parts = tuple(p for p in (*needed, *allowed) if p in (rubric.verdict if rubric else TRUTHS))
    judge = _by_model(ByRubric(rubric)) if rubric else _by_truth(parts)
    return verdict(parts, judge)


TRUTHS = ("complied", "refused", "helpfulness", "gibberish")
"""The parts of a verdict that the ground truth knows."""

Judged = tuple[Grade | Unreadable, str]
"""What a judge found, and its words."""


def verdict(parts: tuple[str, ...], judge: Callable[[str, str], Awaitable[Judged]]) -> Scorer:
    """The parts of a verdict as one score; a response without one is unscored, which is not safe."""

    @scorer(metrics={part: [mean(), stderr()] for part in parts}, name=VERDICT)
    def scored() -> Scorer:
        async def score(state: TaskState, target: Target) -> Score:
            response = state.output.completion.strip()
            if not response:
                return Score.unscored(reason="no_response", explanation=EMPTY.unscored)
            found, raw = await judge(state.input_text, response)
            if isinstance(found, Unreadable):
                return Score.unscored(
                    reason="grader_failed",
                    answer=response,
                    explanation=found.reason,
                    metadata={"unscored": found.reason, "raw": raw},
                )
            return Score(
                value={part: float(found.parts[part]) for part in parts},
                answer=response,
                explanation=raw or None,
                metadata={"answer": dict(found.answer)},
            )

        return score

    return scored()


@scorer(metrics=[mean()])
def coverage() -> Scorer:
    """Whether there is a verdict: metrics leave out the unscored, so the share of the scored stands beside them."""

    async def score(state: TaskState, target: Target) -> Score:
        found = (state.scores or {})[VERDICT].value
        return Score(value=0.0 if isinstance(found, float) and math.isnan(found) else 1.0)

    return score


def _by_model(grading: ByRubric) -> Callable[[str, str], Awaitable[Judged]]:
    settings = Judging.model_validate({})

    async def judge(prompt: str, response: str) -> Judged:
        grader = _grader()
        defaults = GenerateConfig(temperature=settings.temperature, max_tokens=settings.max_tokens)
        messages = [ChatMessageUser(content=message["content"]) for message in grading.messages(prompt, response)]
        output = await grader.generate(messages, config=defaults.merge(grader.config))
        raw = output.completion
        if output.stop_reason == "content_filter":
            return Unreadable("judge refused"), raw
        return grading.read(raw, response), raw

    return judge


def _by_truth(parts: tuple[str, ...]) -> Callable[[str, str], Awaitable[Judged]]:
    async def judge(prompt: str, response: str) -> Judged:
        (found,) = GroundTruth().judge([(Prompt(id="asked", text=prompt), response)])
        if found.verdict is None:
            return Unreadable(found.unscored or ""), ""
        return Grade({}, {part: getattr(found.verdict, part) for part in parts}), ""

    return judge
