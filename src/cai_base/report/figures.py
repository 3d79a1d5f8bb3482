"""The figures: arms side by side, training curves, the course of the metrics, and harm by revision round."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from matplotlib.axes import Axes

from cai_base.report.labels import ARMS, MEASURES, Measure, measures
from cai_base.report.load import Stored
from cai_base.report.plotting import COLOURS, FAINT, Picture, Sheet, label_ends, rate_axis, score_axis, step_axis
from cai_base.run.results import CURVES
from cai_base.store import Record

BRANCHES: Mapping[str, str] = {"dpo": "cai", "sl-cai": "sl-cai"}
"""The phases that start from the SFT adapter, and the arm each of them makes."""


REACH = 7
"""Steps on each side of one in the running mean of a training curve: single batches of few pairs say little."""


@dataclass(frozen=True, slots=True)
class Group:
    """Panels that belong together, under one heading. Where there was nothing to draw, `caption` says so."""

    title: str
    caption: str
    sheet: Sheet

    @property
    def pictures(self) -> list[Picture]:
        """The panels in their order."""
        return self.sheet.pictures


def draw(stored: Stored) -> list[Group]:
    """All figures of a run."""
    return [_arms(stored.results), _training(stored), _course(stored.results), _rounds(stored.results)]


def _arms(results: Record) -> Group:
    sheet = Sheet("arms")
    names = sorted(results["arms"], key=list(ARMS).index)
    for name, measure in measures(results).items():
        figures = [results["arms"][arm][name] for arm in names]
        if all(figure["mean"] is None for figure in figures):
            continue
        with sheet.panel(_dashed(name), f"{measure.label} ({measure.unit})") as axes:
            _seed_lines(axes, figures)
            for place, (arm, figure) in enumerate(zip(names, figures, strict=True)):
                _mean_and_interval(axes, place, figure, measure, COLOURS[arm])
            axes.set_xticks(range(len(names)), [ARMS[arm] for arm in names])
            axes.set_xlim(-0.5, len(names) - 0.5)
            _value_axis(axes, measure)
    caption = (
        "Large marks are means over seeds, with their intervals where there are any; every thin line joins the values "
        "of one seed."
    )
    return Group(
        "Arms side by side",
        caption if sheet.pictures else "Nothing to draw: every answer is unscored.",
        sheet,
    )


def _dashed(metric: str) -> str:
    """A metric's name as it stands in file names; an underscore is markup to Markdown."""
    return metric.replace("_", "-")


def _seed_lines(axes: Axes, figures: Sequence[Record]) -> None:
    for values in zip(*(figure["per_seed"] for figure in figures), strict=True):
        points = [(place, value) for place, value in enumerate(values) if value is not None]
        axes.plot(*zip(*points, strict=True), "-o", color=FAINT, linewidth=0.8, markersize=3) if points else None


def _mean_and_interval(axes: Axes, place: int, figure: Record, measure: Measure, colour: str) -> None:
    centre = figure["mean"]
    if centre is None:
        return
    if figure["ci95"]:
        axes.plot([place, place], figure["ci95"], color=colour, linewidth=2)
    axes.plot([place], [centre], "D", color=colour, markersize=6)
    axes.annotate(
        measure.number(centre),
        (place, centre),
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
        case "count":
            axes.set_ylim(bottom=0)
            axes.set_ylabel(measure.unit)
        case "nats":
            axes.margins(y=0.15)
            axes.set_ylabel(measure.unit)


@dataclass(frozen=True, slots=True)
class _Line:
    """A field of metrics.jsonl, its name in the figure, its colour; `marked` for one recorded at intervals only."""

    field: str
    name: str
    colour: str
    marked: bool = False


def _training(stored: Stored) -> Group:
    blue, orange = COLOURS["cai"], COLOURS["sft"]
    sheet = Sheet("training")
    _steps(stored, "sft", "loss", "SFT: loss (nats a token)", [_Line("loss", "", orange)], sheet)
    nll = ", with its NLL term" if stored.config["dpo"]["nll-weight"] else ""
    _steps(stored, "dpo", "loss", f"DPO: loss{nll} (nats)", [_Line("loss", "", blue)], sheet)
    _steps(stored, "dpo", "margin", "DPO: margin (nats)", [_Line("margin", "", blue)], sheet)
    accuracy = [_Line("accuracy", "", FAINT), _Line("held_out_accuracy", "held-out", blue, marked=True)]
    _steps(stored, "dpo", "accuracy", "DPO: accuracy, batch (grey) and held-out", accuracy, sheet)
    rewards = [_Line("chosen_reward", "chosen", blue), _Line("rejected_reward", "rejected", orange)]
    _steps(stored, "dpo", "rewards", "DPO: rewards (nats)", rewards, sheet)
    _steps(stored, "sl-cai", "loss", "SL-CAI: loss (nats a token)", [_Line("loss", "", COLOURS["sl-cai"])], sheet)
    caption = (
        f"One line a seed: a running mean over {2 * REACH + 1} steps (fewer at the ends), with the values as recorded "
        "at every step faint behind it. Held-out pairs are measured at intervals and shown as measured."
    )
    return Group("Training", caption if sheet.pictures else "No training step was recorded.", sheet)


def _steps(stored: Stored, phase: str, name: str, title: str, lines: Sequence[_Line], sheet: Sheet) -> None:
    """A panel over the steps of a phase, with a line for every seed and field."""
    recorded = stored.metrics(phase)
    if not recorded:
        return
    with sheet.panel(f"{phase}-{name}", title) as axes:
        ends = []
        for line in lines:
            last = []
            for steps in recorded.values():
                points = [(r["step"], r[line.field]) for r in steps if r.get(line.field) is not None]
                if not points:
                    continue
                if line.marked:
                    axes.plot(*zip(*points, strict=True), "-o", color=line.colour, markersize=3.5, linewidth=1.2)
                else:
                    axes.plot(*zip(*points, strict=True), color=line.colour, linewidth=0.6, alpha=0.2)
                    points = smoothed(points)
                    axes.plot(*zip(*points, strict=True), color=line.colour, linewidth=1.1)
                last.append(points[-1])
            if last and line.name:
                ends.append(
                    (max(x for x, _ in last), sorted(y for _, y in last)[len(last) // 2], line.name, line.colour)
                )
        if name == "accuracy":
            rate_axis(axes)
        step_axis(axes)
        label_ends(axes, ends)


def smoothed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The running mean of a curve: every y averaged with up to `REACH` neighbours on each side, as many on both.

    So a straight line stays as it is, and a margin that begins at 0 is drawn from 0.
    """
    reaches = (min(n, len(points) - 1 - n, REACH) for n in range(len(points)))
    windows = [points[n - reach : n + reach + 1] for n, reach in enumerate(reaches)]
    return [(x, fmean(y for _, y in near)) for (x, _), near in zip(points, windows, strict=True)]


def _course(results: Record) -> Group:
    """The evaluation metrics over training: SFT, and from its end every phase that started there."""
    sheet = Sheet("course")
    for name in CURVES:
        measure = MEASURES[name]
        lines = _course_lines(results, name)
        if not lines:
            continue
        with sheet.panel(_dashed(name), f"{measure.label} over training") as axes:
            for arm, points in lines.items():
                axes.plot(*zip(*points, strict=True), "-o", color=COLOURS[arm], linewidth=1.5, markersize=4)
            score_axis(axes) if measure.scale == "score" else rate_axis(axes)
            step_axis(axes, "step, SFT and then the next phase")
            label_ends(axes, [(*points[-1], ARMS[arm], COLOURS[arm]) for arm, points in lines.items()])
            sft = results["curves"]["sft"][-1]["step"]
            axes.axvline(sft, color=FAINT, linewidth=0.8, linestyle=":")
    caption = (
        "Means at every evaluation, each line over the seeds that finished its training. The first point is the base "
        "model; the dotted line is the end of SFT, where the other arms begin."
    )
    return Group("Over training", caption if sheet.pictures else "Nothing to draw: every answer is unscored.", sheet)


def _course_lines(results: Record, name: str) -> dict[str, list[tuple[float, float]]]:
    curves = results["curves"]
    lines = {"sft": _points(curves["sft"], name, 0)}
    for phase, arm in BRANCHES.items():
        if phase in curves:
            lines[arm] = _points(curves[phase], name, curves["sft"][-1]["step"])
    return {arm: points for arm, points in lines.items() if len(points) > 1}


def _points(curve: Iterable[Record], name: str, offset: int) -> list[tuple[float, float]]:
    return [(offset + point["step"], point[name]) for point in curve if point[name] is not None]


def _rounds(results: Record) -> Group:
    revision = results["revision"]
    sheet = Sheet("rounds")
    shares = {
        "harmful": (revision["harmful_by_round"], COLOURS["sft"]),
        "refused": (revision["refused_by_round"], COLOURS["base"]),
    }
    helpful = {"helpfulness": (revision["helpful_by_round"], COLOURS["cai"])}
    _round_panel("shares", "Harmful, and benign refused, by round", shares, sheet)
    _round_panel("helpfulness", "Helpfulness by round", helpful, sheet)
    caption = (
        "Round 0 is the original. Harmful: the share of responses to harmful prompts that comply. Refused: the share "
        "of responses to benign and benign-but-sensitive prompts that decline; helpfulness is over the same. Every "
        "round is over the scored responses of the same chains, all seeds together."
    )
    missing = "Nothing to draw: no chain has a verdict."
    return Group("Revision, round by round", caption if sheet.pictures else missing, sheet)


def _round_panel(name: str, title: str, lines: Mapping[str, tuple[Sequence[float | None], str]], sheet: Sheet) -> None:
    drawn = {
        label: ([(n, value) for n, value in enumerate(values) if value is not None], colour)
        for label, (values, colour) in lines.items()
    }
    drawn = {label: found for label, found in drawn.items() if found[0]}
    if not drawn:
        return
    with sheet.panel(name, title) as axes:
        for points, colour in drawn.values():
            axes.plot(*zip(*points, strict=True), "-o", color=colour, linewidth=1.5, markersize=4)
        score_axis(axes) if "helpfulness" in drawn else rate_axis(axes)
        step_axis(axes, "revision round")
        label_ends(axes, [(*points[-1], label, colour) for label, (points, colour) in drawn.items()])
