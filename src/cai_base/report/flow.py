"""How answers change from one arm to another: each prompt's answer before and after, as bands between two columns."""

from collections import Counter
from typing import Any

from matplotlib.axes import Axes

from cai_base.arms import ARMS, BASE, BASELINE, FULL
from cai_base.inputs.kinds import HARMFUL, HARMLESS
from cai_base.records import Answer
from cai_base.report.labels import label
from cai_base.report.load import StoredRun
from cai_base.report.plotting import FAINT, INK, Sheet

COMPLIES, NEITHER, REFUSES, UNSCORED = STATES = ("complies", "neither", "refuses", "unscored")
COLOURS = {
    COMPLIES: ARMS[BASELINE].colour,
    NEITHER: ARMS[BASE].colour,
    REFUSES: ARMS[FULL].colour,
    UNSCORED: FAINT,
}
PROMPTS = {"harmful": HARMFUL, "harmless": HARMLESS}
"""The kinds of prompt in each panel."""
WIDTH, WRITTEN = 0.16, 0.06
"""The width of a column, and the smallest share that has its name in it."""

POINTS = 30
"""The points of a band's edges."""

Flow = Counter[tuple[str, str]]
"""The number of answers by their state before and after."""


def draw_flows(stored: StoredRun, sheet: Sheet) -> None:
    """Add a panel to the sheet for harmful and for harmless prompts, from SFT-only to full CAI, if the run has both."""
    if not {BASELINE, FULL} <= set(stored.results.arms):
        return
    flows = _flows(stored)
    for name, flow in flows.items():
        if any(before != UNSCORED or after != UNSCORED for before, after in flow):
            with sheet.panel(f"flow-{name}", f"Answers to {name} prompts, {flow.total():,}") as axes:
                _draw(axes, flow)


def _flows(stored: StoredRun) -> dict[str, Counter[tuple[str, str]]]:
    """For each of `PROMPTS`, the states of each prompt's answers by SFT-only and by full CAI, over seeds with both."""
    flows: dict[str, Counter[tuple[str, str]]] = {name: Counter() for name in PROMPTS}
    for seed in stored.seeds:
        after = {(one.kind, one.id): state(one) for one in stored.answers(FULL, seed)}
        for before in stored.answers(BASELINE, seed):
            if (before.kind, before.id) in after:
                for name, kinds in PROMPTS.items():
                    if before.kind in kinds:
                        flows[name][state(before), after[before.kind, before.id]] += 1
    return flows


def state(answer: Answer) -> str:
    """What an answer does, in a word of `STATES`. To a harmless prompt, an answer that does not refuse complies."""
    verdict = answer.verdict
    if verdict is None:
        return UNSCORED
    if answer.kind in HARMLESS:
        return UNSCORED if verdict.refused is None else REFUSES if verdict.refused else COMPLIES
    if verdict.complied is None:
        return UNSCORED
    return COMPLIES if verdict.complied else REFUSES if verdict.refused else NEITHER


def _draw(axes: Axes, flow: Flow) -> None:
    total = sum(flow.values())
    bottoms = [dict.fromkeys(STATES, 0.0) for _ in range(2)]
    for side in range(2):
        top = 0.0
        for one in STATES:
            share = sum(count for states, count in flow.items() if states[side] == one) / total
            bottoms[side][one] = top
            if share:
                _column(axes, side, top, share, one)
            top += share
    for before in STATES:
        for after in STATES:
            if share := flow.get((before, after), 0) / total:
                _band(axes, bottoms[0][before], bottoms[1][after], share, COLOURS[before])
                bottoms[0][before] += share
                bottoms[1][after] += share
    axes.set_xlim(-WIDTH, 1 + WIDTH)
    axes.set_ylim(0, 1)
    names = (label(BASELINE), label(FULL))
    axes.set_xticks([0, 1], [_with_small(name, flow, side) for side, name in enumerate(names)])
    axes.set_yticks([0, 0.5, 1], ["0", "50", "100"])
    axes.set_ylabel("% of answers")
    axes.grid(visible=False)


def _with_small(name: str, flow: Flow, side: int) -> str:
    """An arm's name, and below it the shares that are too small to have their names in the column."""
    shares = {one: sum(count for states, count in flow.items() if states[side] == one) / flow.total() for one in STATES}
    small = [f"{one} {100 * share:.1f} %" for one, share in shares.items() if 0 < share < WRITTEN]
    return "\n".join([name, *([f"({', '.join(small)})"] if small else [])])


def _column(axes: Axes, side: int, bottom: float, share: float, one: str) -> None:
    left = -WIDTH if side == 0 else 1.0
    axes.bar(left, share, WIDTH, bottom, align="edge", color=COLOURS[one], alpha=0.85)
    if share >= WRITTEN:
        inside: Any = {"horizontalalignment": ("left", "right")[side]}
        x, text = (0.02, 0.98)[side], f"{one} {100 * share:.0f} %"
        axes.text(x, bottom + share / 2, text, color=INK, fontsize=8, verticalalignment="center", **inside)


def _band(axes: Axes, left: float, right: float, share: float, colour: str) -> None:
    across = [place / (POINTS - 1) for place in range(POINTS)]
    lower = [left + (right - left) * x**2 * (3 - 2 * x) for x in across]
    axes.fill_between(across, lower, [y + share for y in lower], color=colour, alpha=0.3, linewidth=0)


def caption() -> str:
    """What the panels show."""
    return (
        f"Bands join the answers of {label(BASELINE)} and {label(FULL)} to the same prompts and seeds, in the colour "
        f"of the first. {REFUSES.capitalize()}: declines; {COMPLIES}: does what the prompt asks, or, for a harmless "
        f"prompt, does not decline; {NEITHER}: does not comply, and does not decline as far as the judge says. Counts "
        "over all seeds, without intervals."
    )
