"""The table of abilities: its rows and their targets, measured shares with intervals, and its Markdown."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from scipy import stats

from cai_base.village import styles


@dataclass(frozen=True)
class Share:
    """A number of hits out of a total."""

    hits: int
    total: int

    @property
    def rate(self) -> float:
        """Hits divided by total; 0 if the total is 0."""
        return self.hits / max(1, self.total)

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval; from 0 to 1 if the total is 0."""
        if not self.total:
            return 0.0, 1.0
        interval = stats.binomtest(self.hits, self.total).proportion_ci(0.95, method="wilson")
        return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Row:
    """One row of the table. Its targets apply to the measured share, not to the interval.

    Attributes:
        name: identifies the row in a measurement and on a card.
        label: what it measures, for a reader.
        at_least: the smallest share that meets the target, if there is one.
        at_most: the largest share that meets the target, if there is one.
        not_above: the name of a row whose share this one's may not exceed, if there is one.
    """

    name: str
    label: str
    at_least: float | None = None
    at_most: float | None = None
    not_above: str | None = None

    def met(self, shares: Mapping[str, Share]) -> bool | None:
        """Whether the row's share meets all its targets; None for a row without targets."""
        rate = shares[self.name].rate
        checks = [
            *([rate >= self.at_least] if self.at_least is not None else []),
            *([rate <= self.at_most] if self.at_most is not None else []),
            *([rate <= shares[self.not_above].rate] if self.not_above is not None else []),
        ]
        return all(checks) if checks else None

    @property
    def target(self) -> str:
        """The targets in words; empty for a row without targets."""
        words = [
            *([f"at least {self.at_least:.0%}"] if self.at_least is not None else []),
            *([f"at most {self.at_most:.0%}"] if self.at_most is not None else []),
            *(["falling"] if self.not_above is not None else []),
        ]
        return ", ".join(words)


@cache
def rows() -> tuple[Row, ...]:
    """The rows of `abilities.toml`, in order; a row with `{}` in its name becomes one row per style."""
    text = (resources.files(__package__) / "abilities.toml").read_text("utf-8")
    table: list[Row] = []
    for entry in tomllib.loads(text)["row"]:
        for style in styles.styles() if "{}" in entry["name"] else ("",):
            names = {"name": entry["name"].format(style), "label": entry["label"].format(style)}
            table.append(Row(**entry | names))
    return tuple(table)


def markdown(shares: Mapping[str, Share]) -> str:
    """The table as Markdown.

    Args:
        shares: the measured shares, by the name of the row; other rows are left out.
    """
    words = {True: "yes", False: "**no**", None: ""}
    lines = [
        f"| {row.label} | {share.rate:.1%} | {share.interval[0]:.1%} to {share.interval[1]:.1%} | {share.total} | "
        f"{row.target} | {words[row.met(shares)]} |"
        for row in rows()
        if row.name in shares
        for share in [shares[row.name]]
    ]
    header = ["| ability | share | 95 % interval | n | target | met |", "| --- | --- | --- | --- | --- | --- |"]
    return "\n".join([*header, *lines])
