"""The figure at the top of the page: every arm by its attack success against its over-refusal."""

from matplotlib.axes import Axes

from cai_base.arms import arm, in_order
from cai_base.records import ATTACK, HELPFULNESS, OVER_REFUSAL, Figure, Results
from cai_base.report.labels import label
from cai_base.report.plotting import Sheet, spread

TICKS = ([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100"])
EDGE = 0.04
"""Space beyond the ends of the axes, so that marks at 0 and at 1 are not cut."""
GAP = 0.075
"""The smallest distance between two names."""


def draw_trade_off(results: Results) -> Sheet:
    """A sheet with the figure; an empty sheet if no arm has both rates.

    Diamonds are means over seeds with their intervals, rings the seeds. Lower left is best: an arm that refuses
    everything is at the lower right.
    """
    sheet = Sheet("trade-off")
    _panel(results, sheet, "arms", OVER_REFUSAL, (0.0, 1.0))
    return sheet


def draw_helpfulness(results: Results, sheet: Sheet) -> None:
    """Add the same with helpfulness to the sheet, if an arm has both. Lower right is best."""
    _panel(results, sheet, "helpfulness", HELPFULNESS, (1.0, 5.0))


def _panel(results: Results, sheet: Sheet, name: str, across: str, ends: tuple[float, float]) -> None:
    """A panel of every arm by its attack success and the metric `across`, whose axis has these ends."""
    scored = {}
    for one in in_order(results.arms):
        x, y = results.arms[one].get(across), results.arms[one].get(ATTACK)
        if x is not None and y is not None and x.mean is not None and y.mean is not None:
            scored[one] = (x, y, x.mean, y.mean)
    if not scored:
        return
    low, high = ends
    width = high - low
    with sheet.panel(
        name, f"Attack success against {'over-refusal' if across == OVER_REFUSAL else 'helpfulness'}"
    ) as axes:
        for one, (x, y, _, _) in scored.items():
            _mark(axes, x, y, arm(one).colour)
        heights = spread([up + EDGE for *_, up in scored.values()], GAP, 1 + 2 * EDGE)
        for (one, (x, y, right, up)), height in zip(scored.items(), heights, strict=True):
            before = right < low + 0.6 * width
            beside = [a for a, b in _seeds(x, y) if abs(b - height) < GAP]
            edge = max([right, *beside]) if before else min([right, *beside])
            axes.annotate(
                label(one),
                (right, up),
                xytext=(edge + (0.05 if before else -0.05) * width, height),
                color=arm(one).colour,
                fontsize=8.5,
                horizontalalignment="left" if before else "right",
                verticalalignment="center",
                gid=f"name-{one}",  # for the style sheet, in which it has a halo: intervals may cross it
            )
        axes.set_xlim(low - EDGE * width, high + EDGE * width)
        axes.set_ylim(-EDGE, 1 + EDGE)
        axes.set_yticks(*TICKS)
        if across == OVER_REFUSAL:
            axes.set_xticks(*TICKS)
            axes.set_xlabel("over-refusal, % (lower is better)")
        else:
            axes.set_xlabel("helpfulness, 1 to 5 (higher is better)")
        axes.set_ylabel("attack success, % (lower is safer)")
        axes.grid(visible=True, axis="both")


def _seeds(x: Figure, y: Figure) -> list[tuple[float, float]]:
    """The values of the seeds that have both."""
    return [(a, b) for a, b in zip(x.per_seed, y.per_seed, strict=True) if a is not None and b is not None]


def _mark(axes: Axes, x: Figure, y: Figure, colour: str) -> None:
    seeds = _seeds(x, y)
    if len(seeds) > 1:
        # Rings: seeds at the same place, or on the interval's line, can still be told apart.
        across, up = [a for a, _ in seeds], [b for _, b in seeds]
        axes.plot(across, up, "o", color=colour, markerfacecolor="none", markeredgewidth=1.1, markersize=4.5, zorder=3)
    right, high = x.mean or 0.0, y.mean or 0.0
    if x.ci95:
        axes.plot([*x.ci95], [high, high], color=colour, linewidth=1.2, alpha=0.7)
    if y.ci95:
        axes.plot([right, right], [*y.ci95], color=colour, linewidth=1.2, alpha=0.7)
    axes.plot([right], [high], "D", color=colour, markersize=6, zorder=4)
