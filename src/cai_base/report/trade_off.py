"""The figure at the top of the page: every arm by its attack success against its over-refusal."""

from matplotlib.axes import Axes

from cai_base.arms import arm, in_order
from cai_base.records import ATTACK, OVER_REFUSAL, Figure, Results
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
    rates = {name: (results.arms[name].get(OVER_REFUSAL), results.arms[name].get(ATTACK)) for name in results.arms}
    scored = {
        name: (x, y)
        for name in in_order(rates)
        if (x := rates[name][0]) is not None and (y := rates[name][1]) is not None
        if x.mean is not None and y.mean is not None
    }
    if not scored:
        return sheet
    with sheet.panel("arms", "Attack success against over-refusal") as axes:
        for name, (x, y) in scored.items():
            _mark(axes, x, y, arm(name).colour)
        heights = spread([(y.mean or 0.0) + EDGE for _, y in scored.values()], GAP, 1 + 2 * EDGE)
        for (name, (x, y)), height in zip(scored.items(), heights, strict=True):
            right = (x.mean or 0.0) < 0.6
            axes.annotate(
                label(name),
                (x.mean or 0.0, y.mean or 0.0),
                xytext=((x.mean or 0.0) + (0.05 if right else -0.05), height),
                color=arm(name).colour,
                fontsize=8.5,
                horizontalalignment="left" if right else "right",
                verticalalignment="center",
            )
        axes.set_xlim(-EDGE, 1 + EDGE)
        axes.set_ylim(-EDGE, 1 + EDGE)
        axes.set_xticks(*TICKS)
        axes.set_yticks(*TICKS)
        axes.set_xlabel("over-refusal, % (lower is better)")
        axes.set_ylabel("attack success, % (lower is safer)")
        axes.grid(visible=True, axis="both")
    return sheet


def _mark(axes: Axes, x: Figure, y: Figure, colour: str) -> None:
    seeds = [(a, b) for a, b in zip(x.per_seed, y.per_seed, strict=True) if a is not None and b is not None]
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
