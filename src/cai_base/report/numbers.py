"""How figures are written, in the terminal, on both pages and in plots."""

from collections.abc import Mapping, Sequence

from cai_base.evaluation.measures import Measure, Scale
from cai_base.evaluation.tasks.prompts import METRICS
from cai_base.records import ATTACK

UNITS: Mapping[Scale, str] = {
    "rate": "%",
    "score": "1–5",
    "share": "0–1",
    "count": "number",
    "tokens": "tokens",
    "nats": "nats per token",
}

DIGITS: Mapping[Scale, int] = {"rate": 1, "score": 2, "share": 2, "count": 1, "tokens": 1, "nats": 2}
"""Digits after the decimal point."""

NONE = "–"
"""Shown where there is no figure."""

RATE = METRICS[ATTACK]
"""A measure in per cent, for rates that are not the value of a metric."""


def heading(measure: Measure) -> str:
    """The measure's name with its unit."""
    return f"{measure.label} ({UNITS[measure.scale]})"


def number(measure: Measure, value: float, signed: bool = False) -> str:
    """The value in the measure's unit, without the unit."""
    scaled, digits = 100 * value if measure.scale == "rate" else value, DIGITS[measure.scale]
    text = f"{scaled:+.{digits}f}" if signed else f"{scaled:.{digits}f}"
    if not text.strip("+-0."):  # a zero has no sign
        text = text.lstrip("+-")
    return text.replace("-", "−")


def interval(measure: Measure, ends: Sequence[float] | None, signed: bool = False) -> str:
    """Both ends of an interval; empty where there is none."""
    if ends is None:
        return ""
    low, high = (number(measure, end, signed) for end in ends)
    return f"[{low}, {high}]"


def percent(value: float) -> str:
    """A rate with its unit."""
    return f"{number(RATE, value)} %"


def p_value(value: float | None) -> str:
    """A p value with three decimals."""
    if value is None:
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
