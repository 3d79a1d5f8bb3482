"""How figures look and are stored: small panels, as SVG and PDF with reproducible bytes, legible in light and dark."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from cai_base.arms import ARMS

SIZE = (3.7, 2.7)
"""Inches: the width of a phone, so that a panel is not scaled down there."""

INK, FAINT = "#1f2328", "#8b949e"
"""Colours of text and axes, and of grid and secondary lines."""

MANY = 4
"""A panel with more arms than this has no numbers beside the marks, and slanted names."""

THEMED: Mapping[str, str] = {INK: "ink", FAINT: "faint", **{one.colour: f"arm-{one.name}" for one in ARMS.values()}}
"""Each colour's name in the page's style sheet, which has another value for dark screens."""


def arm_colours() -> dict[str, tuple[str, str]]:
    """Each arm's colour on a light and on a dark screen, by the name of its variable in the style sheet."""
    return {THEMED[one.colour]: (one.colour, lighter(one.colour)) for one in ARMS.values()}


def lighter(colour: str, share: float = 0.35) -> str:
    """A colour mixed with white, for more contrast on a dark screen. `share` is the share of white."""
    parts = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "#" + "".join(f"{round(part + share * (255 - part)):02x}" for part in parts)


STYLE: Any = {
    "svg.hashsalt": "cai-base",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name with two dollar signs is a name
    "pdf.fonttype": 42,
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.titlepad": 12.0,  # room for the number above a mark at 100 %
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": FAINT,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
}


READABLE = 300
"""The most points of a line that can be read off; of a longer one, every second, third, ... point."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One panel.

    Attributes:
        readings: what the page's script reads off: the place of the axes as shares of the width and height, the limits
            of x, the unit, and each line's name, group and points; None where nothing can be read off.
    """

    name: str
    title: str
    svg: bytes
    readings: Mapping[str, Any] | None = None

    @property
    def inline(self) -> str:
        """The SVG for use inside a page: only its element, with unique ids and the page's colours."""
        text = self.svg.decode()
        text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
        text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{self.name}-", text)
        for colour, name in THEMED.items():
            text = text.replace(colour, f"var(--{name})")
        return text


class Sheet:
    """A group of panels: each is one SVG, and all are the pages of one PDF."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.pictures: list[Picture] = []
        self._figures: list[Figure] = []

    @contextmanager
    def panel(self, name: str, title: str, size: tuple[float, float] = SIZE) -> Iterator[Axes]:
        """Axes to draw on, with `size` in inches; on exit the panel is added to the sheet."""
        with mpl.rc_context(STYLE):
            figure = Figure(figsize=size, layout="constrained")
            axes = figure.add_subplot()
            axes.set_title(title)
            yield axes
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # laid out once, drawn twice
            content = io.BytesIO()
            figure.savefig(content, format="svg", metadata={"Date": None}, transparent=True)
        self._figures.append(figure)
        self.pictures.append(Picture(f"{self.name}-{name}", title, content.getvalue(), _readings(axes)))

    def pdf(self) -> bytes:
        """All panels as pages of one PDF: embedding the fonts takes most of the time, and one file needs them once."""
        content = io.BytesIO()
        with mpl.rc_context(STYLE), PdfPages(content, metadata={"CreationDate": None}) as pages:
            for figure in self._figures:
                pages.savefig(figure, transparent=True)
        return content.getvalue()


def readable(name: str = "", group: str = "") -> str:
    """The label of a line whose values the page shows under the pointer; lines of one group are shown together."""
    return f"{group}\t{name}"


def _readings(axes: Axes) -> dict[str, Any] | None:
    """The values that the page shows under the pointer: of the lines whose label is from `readable`."""
    lines = []
    percent = axes.get_ylabel() == "%"
    for line in axes.lines:
        group, tab, name = str(line.get_label()).partition("\t")
        if not tab:
            continue
        data: Any = line.get_xydata()
        points = data.tolist()
        points = points[:: -(-len(points) // READABLE)]
        values = [float(f"{100 * y if percent else y:.3g}") for _, y in points]
        lines.append({"group": group, "name": name, "x": [float(f"{x:.6g}") for x, _ in points], "y": values})
    if not lines:
        return None
    box, named = axes.get_position(), isinstance(axes.xaxis.get_major_locator(), FixedLocator)
    return {
        "left": round(box.x0, 4),
        "right": round(box.x1, 4),
        "top": round(1 - box.y1, 4),
        "bottom": round(1 - box.y0, 4),
        "limits": [float(f"{end:.6g}") for end in axes.get_xlim()],
        "x": axes.get_xlabel().partition(",")[0],
        "names": [text.get_text() for text in axes.get_xticklabels()] if named else [],
        "unit": " %" if percent else "",
        "lines": lines,
    }


def rate_axis(axes: Axes) -> None:
    """A y axis for shares, always from 0 to 1, labelled in per cent."""
    axes.set_ylim(-0.03, 1.03)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100"])
    axes.set_ylabel("%")


def score_axis(axes: Axes) -> None:
    """A y axis for scores from 1 to 5."""
    axes.set_ylim(0.9, 5.1)
    axes.set_yticks([1, 2, 3, 4, 5])
    axes.set_ylabel("score, 1–5")


def step_axis(axes: Axes, label: str = "step") -> None:
    """An x axis of integers."""
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def name_axis(axes: Axes, names: Sequence[str]) -> None:
    """An x axis of names, slanted where they would overlap."""
    axes.set_xticks(range(len(names)), names)
    if len(names) > MANY:
        axes.tick_params(axis="x", length=0)
        for text in axes.get_xticklabels():
            text.set(rotation=40, horizontalalignment="right", rotation_mode="anchor")
    axes.set_xlim(-0.5, len(names) - 0.5)


def label_ends(axes: Axes, ends: list[tuple[float, float, str, str]]) -> None:
    """Write each line's name (x, y, name, colour) right of its end without overlap.

    A shorter line, which others may continue, has its name above its end, or below it where a line goes on upwards.
    """
    edge = max((x for x, *_ in ends), default=0.0)
    low, high = axes.get_ylim()
    gap, free = 0.085 * (high - low), float("-inf")
    for x, y, name, colour in sorted(ends, key=lambda end: end[1]):
        if x < edge:
            slopes = _slopes_from(axes, x)
            upwards, in_title = any(slope > 0 for slope in slopes), y > low + 0.9 * (high - low)
            below = not any(slope < 0 for slope in slopes) and (upwards or in_title)
            _write(axes, name, (x, y), (5, -9 if below else 9), colour, "left")
        else:
            free = max(y, free + gap)
            _write(axes, name, (x, free), (5, 0), colour, "left")


def _slopes_from(axes: Axes, x: float) -> list[float]:
    """How far each line that begins at `x` rises to its second point."""
    paths: list[Any] = [line.get_xydata() for line in axes.lines]
    return [path[1][1] - path[0][1] for path in paths if len(path) > 1 and path[0][0] == x]


def _write(
    axes: Axes, text: str, place: tuple[float, float], offset: tuple[float, float], colour: str, side: str
) -> None:
    axes.annotate(
        text,
        place,
        xytext=offset,
        textcoords="offset points",
        color=colour,
        horizontalalignment=side,
        verticalalignment="center",
        fontsize=8.5,
        annotation_clip=False,
    )


def spread(places: Sequence[float], gap: float, highest: float) -> list[float]:
    """Positions for names, close to `places`, at least `gap` apart, none above `highest`."""
    order = sorted(range(len(places)), key=lambda n: places[n])
    chosen: list[float] = []
    for n in order:
        chosen.append(max(places[n], chosen[-1] + gap if chosen else places[n]))
    top = highest
    for n in reversed(range(len(chosen))):
        chosen[n] = min(chosen[n], top)
        top = chosen[n] - gap
    back = dict(zip(order, chosen, strict=True))
    return [back[n] for n in range(len(places))]
