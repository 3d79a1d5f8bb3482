"""The points of a run's curves, read from its folder, for trackers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cai_base import paths
from cai_base.arms import ARMS, FULL, Arm
from cai_base.evaluation.metrics import means
from cai_base.records import TrainingStep
from cai_base.run.stored import answers_of, records_of
from cai_base.store import Run


@dataclass(frozen=True, slots=True)
class Point:
    """Values at one step of one curve.

    Attributes:
        step: the training step, counted from 1; 0 for an untrained model.
        values: the values by name, such as `dpo/margin` or `eval/cai/attack_success_rate`.
    """

    step: int
    values: Mapping[str, float]


def stored_points(
    run: Run, evaluated: Sequence[str], steps: Mapping[str, int], every: int, seed: int
) -> dict[str, list[Point]]:
    """Every stored point of a seed, by curve. Points are only ever appended to a curve.

    The curves are those of the training phases (their folder's name) and of the arms' evaluations (`eval/ARM`).

    Args:
        evaluated: the arms of the run.
        steps: the training steps of each trained arm.
        every: steps between evaluations.
    """
    arms = [ARMS[name] for name in evaluated]
    training = {arm.folder: _training(run, seed, arm.folder) for arm in arms if arm.folder is not None}
    evaluations = {
        f"eval/{arm.name}": list(_evaluations(run, steps.get(arm.name, 0), every, seed, arm)) for arm in arms
    }
    return {name: points for name, points in {**training, **evaluations}.items() if points}


def _training(run: Run, seed: int, phase: str) -> list[Point]:
    steps = records_of(run, paths.metrics(seed, phase), TrainingStep)
    return [Point(one.step + 1, {f"{phase}/{key}": value for key, value in _numbers(one)}) for one in steps]


def _numbers(step: TrainingStep) -> Iterator[tuple[str, float]]:
    for key, value in step.dump().items():
        if key != "step" and value is not None:
            yield key, float(value)


def _evaluations(run: Run, last: int, every: int, seed: int, arm: Arm) -> Iterator[Point]:
    """The arm's metrics at every evaluated step, and at the end of its training.

    Those of full CAI also have the name `eval/METRIC`, without the arm, as is usual in other programs.
    """
    interim = range(every, last, every) if arm.curve else ()
    for step in (*interim, last):
        answers = answers_of(run, seed, arm.name, None if step == last else step)
        if not answers:
            return
        figures = means(answers)
        names = [f"eval/{arm.name}/", *(["eval/"] if arm.name == FULL else [])]
        yield Point(step, {f"{name}{metric}": value for name in names for metric, value in figures.items()})
