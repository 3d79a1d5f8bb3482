"""The figures: arms side by side, training curves, the metrics over training, and harm by revision round.

Nothing here is a result: the only mean that is taken smooths a training curve for the eye.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes

from cai_base.arms import ARMS, BASE, BASELINE, FULL, SFT, arm, in_order
from cai_base.evaluation.measures import Measure
from cai_base.evaluation.tasks.prompts import CURVES, METRICS
from cai_base.records import CurvePoint, Figure, Results, TrainingStep
from cai_base.report import flow
from cai_base.report.flow import draw_flows
from cai_base.report.labels import label
from cai_base.report.load import StoredRun
from cai_base.report.numbers import UNITS, heading, number
from cai_base.report.plotting import (
    FAINT,
    MANY,
    Picture,
    Sheet,
    label_ends,
    name_axis,
    rate_axis,
    readable,
    score_axis,
    step_axis,
)
from cai_base.report.tables import metrics_of
from cai_base.report.trade_off import draw_helpfulness, draw_trade_off

REACH = 7
"""Steps on each side in the running mean of a training curve: a single batch of a few pairs is noisy."""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Group:
    """Panels under one heading. If there was nothing to draw, `caption` says so."""

    title: str
    caption: str
    sheet: Sheet

    @property
    def pictures(self) -> list[Picture]:
        """The panels, in order."""
        return self.sheet.pictures


def draw(stored: StoredRun) -> list[Group]:
    """All figures of a run; the first is for the top of the page."""
    return [
        _trade_off(stored.results),
        _moved(stored),
        _arms(stored.results),
        _training(stored),
        _course(stored.results),
        _rounds(stored.results),
    ]


def _trade_off(results: Results) -> Group:
    caption = (
        "Every arm by both rates: diamonds are means over seeds with their intervals, rings single seeds. "
        "Lower left is best; a model that refuses everything is at the lower right."
    )
    sheet = draw_trade_off(results)
    return Group("At a glance", caption if sheet.pictures else "Nothing to draw: every answer is unscored.", sheet)


def _moved(stored: StoredRun) -> Group:
    sheet = Sheet("moved")
    draw_helpfulness(stored.results, sheet)
    draw_flows(stored, sheet)
    names = [picture.name for picture in sheet.pictures]
    captions = []
    if any("helpfulness" in name for name in names):
        captions.append("Helpfulness of harmless answers against attack success: lower right is best.")
    if any("flow" in name for name in names):
        captions.append(flow.caption())
    missing = f"Nothing to draw: it takes scores of helpfulness, or scored answers of {label(SFT)} and {label(FULL)}."
    return Group("What training moved", " ".join(captions) or missing, sheet)


def _arms(results: Results) -> Group:
    sheet = Sheet("arms")
    names = in_order(results.arms)
    zero = []
    for name, metric in metrics_of(results).items():
        figures = [results.arms[arm][name] for arm in names]
        means = [figure.mean for figure in figures if figure.mean is not None]
        if not means:
            continue
        if metric.scale == "rate" and not any(means):
            zero.append(metric.label)
            continue
        with sheet.panel(_dashed(name), heading(metric)) as axes:
            _seed_lines(axes, figures, results.seeds)
            for place, (one, figure) in enumerate(zip(names, figures, strict=True)):
                _mean_and_interval(axes, place, figure, metric, arm(one).colour, written=len(names) <= MANY)
            name_axis(axes, [label(one) for one in names])
            _value_axis(axes, metric)
    caption = (
        "Large marks are means over seeds, with their intervals where there are any; every thin line joins the values "
        "of one seed."
    )
    if zero:
        caption += f" Not drawn, because the rate is 0 for every arm: {', '.join(zero)}."
    content = sheet.pictures or zero
    return Group("Arms side by side", caption if content else "Nothing to draw: every answer is unscored.", sheet)


def _dashed(metric: str) -> str:
    """A metric's name in file names, with hyphens: an underscore is markup in Markdown."""
    return metric.replace("_", "-")


def _seed_lines(axes: Axes, figures: Sequence[Figure], seeds: Sequence[int]) -> None:
    for seed, values in zip(seeds, zip(*(figure.per_seed for figure in figures), strict=True), strict=True):
        points = [(place, value) for place, value in enumerate(values) if value is not None]
        if points:
            read = readable(f"seed {seed}", "seeds")
            axes.plot(*zip(*points, strict=True), "-o", color=FAINT, linewidth=0.8, markersize=3, label=read)


def _mean_and_interval(axes: Axes, place: int, figure: Figure, measure: Measure, colour: str, *, written: bool) -> None:
    """Draw one arm's mean and interval; with `written`, also the number beside it."""
    if figure.mean is None:
        return
    if figure.ci95:
        axes.plot([place, place], figure.ci95, color=colour, linewidth=2)
    axes.plot([place], [figure.mean], "D", color=colour, markersize=6, label=readable("mean"))
    if written:
        axes.annotate(
            number(measure, figure.mean),
            (place, figure.mean),
            xytext=(9, 4),
            textcoords="offset points",
            annotation_clip=False,
        )


def _value_axis(axes: Axes, measure: Measure) -> None:
    match measure.scale:
        case "rate":
            rate_axis(axes)
        case "score":
            score_axis(axes)
        case "count" | "tokens":
            axes.set_ylim(bottom=0)
            axes.set_ylabel(UNITS[measure.scale])
        case "share" | "nats":
            axes.margins(y=0.15)
            axes.set_ylabel(UNITS[measure.scale])


@dataclass(frozen=True, slots=True)
class _Line:
    """A field of the training steps.

    Attributes:
        name: the line's name; empty if the panel has one line.
        marked: recorded at intervals only, so drawn as recorded, with a mark at each point.
        named: whether its name is written at its end.
    """

    field: str
    name: str
    colour: str
    marked: bool = False
    named: bool = True


def _training(stored: StoredRun) -> Group:
    """A row of panels for every trained arm: what its training recorded."""
    sheet = Sheet("training")
    for name in stored.trained_arms:
        phase = ARMS[name].folder
        if phase is not None:
            _training_panels(sheet, name, phase, stored.steps(phase))
    caption = (
        f"One line per seed: a centred running mean over up to {2 * REACH + 1} steps (so it ends "
        f"{REACH} steps before the last step), with the recorded value of every step faint behind it. Held-out pairs "
        "are measured at intervals and shown as measured. Accuracy is the share of pairs whose chosen response has "
        "the higher reward. A step at which all margins are 0 (before the first update of a loss with a reference) "
        "is left out. Losses, margins and rewards are in nats; see the glossary for each loss."
    )
    return Group("Training", caption if sheet.pictures else "No training step was recorded.", sheet)


def _training_panels(sheet: Sheet, name: str, phase: str, steps: Mapping[int, Sequence[TrainingStep]]) -> None:
    colour, second = ARMS[name].colour, ARMS[BASELINE].colour
    panels = {
        "loss": ("loss", [_Line("loss", "", colour)]),
        "margin": ("margin", [_Line("margin", "", colour)]),
        "accuracy": (
            "accuracy, batch (grey), held-out",
            [
                _Line("accuracy", "batch", FAINT, named=False),
                _Line("held_out_accuracy", "held-out", colour, marked=True),
            ],
        ),
        "rewards": (
            "rewards",
            [_Line("chosen_reward", "chosen", colour), _Line("rejected_reward", "rejected", second)],
        ),
    }
    for panel, (title, lines) in panels.items():
        of_panel = _untied(steps) if panel == "accuracy" else steps
        curves = [(line, _seed_curves(of_panel, line.field)) for line in lines]
        if not any(of_seeds for _, of_seeds in curves):
            continue
        with sheet.panel(f"{phase}-{panel}", f"{label(name)}: {title}") as axes:
            ends = []
            for line, of_seeds in curves:
                last = [_curve(axes, line, seed, points) for seed, points in of_seeds.items()]
                if last and line.name and line.named:
                    ends.append((max(x for x, _ in last), _middle([y for _, y in last]), line.name, line.colour))
            if panel == "accuracy":
                rate_axis(axes)
            step_axis(axes)
            label_ends(axes, ends)


def _untied(steps: Mapping[int, Sequence[TrainingStep]]) -> dict[int, list[TrainingStep]]:
    """The steps at which some margin is not 0. Where all are 0, every pair is tied and would count as wrong."""
    return {seed: [step for step in of_seed if _value(step, "margin") != 0] for seed, of_seed in steps.items()}


def _seed_curves(steps: Mapping[int, Sequence[TrainingStep]], field: str) -> dict[int, list[Point]]:
    """The values of a field over the steps, one curve per seed that recorded it."""
    curves = {}
    for seed, of_seed in steps.items():
        values = [(float(step.step), _value(step, field)) for step in of_seed]
        points = [(x, y) for x, y in values if y is not None]
        if points:
            curves[seed] = points
    return curves


def _value(record: TrainingStep | CurvePoint, field: str) -> float | None:
    value = getattr(record, field, None)
    return float(value) if isinstance(value, int | float) else None


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _curve(axes: Axes, line: _Line, seed: int, points: list[Point]) -> Point:
    """Draw one seed's curve. Returns its last point. The values that a reader can read off are the running mean's."""
    read = readable(f"seed {seed}", line.name or "seeds")
    if line.marked:
        axes.plot(*zip(*points, strict=True), "-o", color=line.colour, markersize=3.5, linewidth=1.2, label=read)
        return points[-1]
    axes.plot(*zip(*points, strict=True), color=line.colour, linewidth=0.6, alpha=0.2)
    smooth = smoothed(points)
    axes.plot(*zip(*smooth, strict=True), color=line.colour, linewidth=1.1, label=read)
    return smooth[-1]


def smoothed(points: Sequence[Point]) -> list[Point]:
    """The centred running mean of a curve: every y averaged with the same number of neighbours, up to `REACH`, on each
    side.

    A straight line is therefore unchanged, and a margin that begins at 0 is drawn from 0. The curve ends with the last
    full window: later points would average ever fewer steps, and the final point would be a single batch.
    """
    last = max(len(points) - REACH, (len(points) + 1) // 2)
    reaches = (min(n, len(points) - 1 - n, REACH) for n in range(last))
    windows = [points[n - reach : n + reach + 1] for n, reach in enumerate(reaches)]
    return [(x, fmean(y for _, y in near)) for (x, _), near in zip(points, windows, strict=False)]


def _course(results: Results) -> Group:
    """The evaluation metrics over training: SFT, then every phase that starts from the SFT model."""
    sheet = Sheet("course")
    sft_steps = results.curves[SFT][-1].step
    for name in CURVES:
        metric = METRICS[name]
        lines = _course_lines(results, name, sft_steps)
        if not lines:
            continue
        with sheet.panel(_dashed(name), f"{metric.label} over training") as axes:
            for one, points in lines.items():
                style: Any = {"color": arm(one).colour, "linewidth": 1.5, "markersize": 4}
                axes.plot(*zip(*points, strict=True), "-o", **style, label=readable(label(one)))
            _value_axis(axes, metric)
            step_axis(axes, "step: SFT, then the next phase")
            label_ends(axes, [(*points[-1], label(one), arm(one).colour) for one, points in lines.items()])
            axes.axvline(sft_steps, color=FAINT, linewidth=0.8, linestyle=":")
    caption = (
        "Means at every evaluation, over the seeds that finished the training. The first point is the base "
        "model; the dotted line is the end of SFT, where training of the other arms begins."
    )
    return Group("Over training", caption if sheet.pictures else "Nothing to draw: every answer is unscored.", sheet)


def _course_lines(results: Results, metric: str, sft_steps: int) -> dict[str, list[Point]]:
    """For every arm evaluated during training, the metric over the steps counted from the base model."""
    lines = {}
    for one in ARMS.values():
        points = []
        for point in results.curves.get(one.folder or "", ()):
            value = _value(point, metric)
            if value is not None:
                points.append((float(point.step + (0 if one.name == BASELINE else sft_steps)), value))
        if len(points) > 1:
            lines[one.name] = points
    return lines


def _rounds(results: Results) -> Group:
    revision = results.revision
    sheet = Sheet("rounds")
    shares = {
        "harmful": (revision.harmful_by_round, ARMS[BASELINE].colour),
        "refused": (revision.refused_by_round, ARMS[BASE].colour),
    }
    helpful = {"helpfulness": (revision.helpful_by_round, ARMS[FULL].colour)}
    _round_panel("shares", "Harmful, and benign refused, by round", shares, sheet)
    _round_panel("helpfulness", "Helpfulness by round", helpful, sheet)
    caption = (
        "Round 0 is the original. Harmful: the share of responses to jailbreak, direct and borderline prompts that "
        "comply. Refused: the share "
        "of responses to benign and benign-but-sensitive prompts that decline; helpfulness: over the same responses. "
        "Every "
        "round is over the scored responses of the same chains, pooled over seeds."
    )
    missing = "Nothing to draw: no chain has a verdict."
    return Group("Revision, round by round", caption if sheet.pictures else missing, sheet)


def _round_panel(name: str, title: str, lines: Mapping[str, tuple[Sequence[float | None], str]], sheet: Sheet) -> None:
    curves = {
        text: ([(float(n), value) for n, value in enumerate(values) if value is not None], colour)
        for text, (values, colour) in lines.items()
    }
    curves = {text: (points, colour) for text, (points, colour) in curves.items() if points}
    if not curves:
        return
    with sheet.panel(name, title) as axes:
        for text, (points, colour) in curves.items():
            style: Any = {"color": colour, "linewidth": 1.5, "markersize": 4}
            axes.plot(*zip(*points, strict=True), "-o", **style, label=readable(text))
        score_axis(axes) if "helpfulness" in curves else rate_axis(axes)
        step_axis(axes, "revision round")
        label_ends(axes, [(*points[-1], text, colour) for text, (points, colour) in curves.items()])
