"""The table of the organism's abilities: rows with their bounds, shares with their intervals, and how it is shown."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from scipy import stats

from cai_base.village import styles


@dataclass(frozen=True)
class Share:
    """How many of how many."""

    hits: int
    total: int

    @property
    def rate(self) -> float:
        """Hits over total; 0 of nothing is 0."""
        return self.hits / max(1, self.total)

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval; 0 to 1 of nothing."""
        if not self.total:
            return 0.0, 1.0
        found = stats.binomtest(self.hits, self.total).proportion_ci(0.95, method="wilson")
        return float(found.low), float(found.high)


@dataclass(frozen=True)
class Row:
    """One row of the table. Shares are compared as measured, not their intervals.

    Attributes:
        name: by which a measurement counts for it.
        says: what it shows, for a reader.
        at_least: the least share that is enough, if the row has one.
        at_most: the largest share that is allowed, if the row has one.
        not_above: the row whose share this one's may not exceed, if there is one.
    """

    name: str
    says: str
    at_least: float | None = None
    at_most: float | None = None
    not_above: str | None = None

    def met(self, shares: Mapping[str, Share]) -> bool | None:
        """Whether the row's share keeps to its bounds; None for a row without bounds."""
        rate = shares[self.name].rate
        kept = [
            *([rate >= self.at_least] if self.at_least is not None else []),
            *([rate <= self.at_most] if self.at_most is not None else []),
            *([rate <= shares[self.not_above].rate] if self.not_above is not None else []),
        ]
        return all(kept) if kept else None

    @property
    def bound(self) -> str:
        """The bounds in words; empty where there are none."""
        words = [
            *([f"at least {self.at_least:.0%}"] if self.at_least is not None else []),
            *([f"at most {self.at_most:.0%}"] if self.at_most is not None else []),
            *(["falling"] if self.not_above is not None else []),
        ]
        return ", ".join(words)


@cache
def rows() -> tuple[Row, ...]:
    """The table's rows in their order, from `abilities.toml`."""
    text = (resources.files(__package__) / "abilities.toml").read_text("utf-8")
    found: list[Row] = []
    for entry in tomllib.loads(text)["row"]:
        each = styles.styles() if "{}" in entry["name"] else ("",)
        found += [Row(**entry | {"name": entry["name"].format(one), "says": entry["says"].format(one)}) for one in each]
    return tuple(found)


def markdown(shares: Mapping[str, Share]) -> str:
    """The table as Markdown.

    Args:
        shares: rows' shares, by name; a row that was not measured is left out.
    """
    words = {True: "yes", False: "**no**", None: ""}
    lines = [
        f"| {row.says} | {share.rate:.1%} | {share.interval[0]:.1%} to {share.interval[1]:.1%} | {share.total} | "
        f"{row.bound} | {words[row.met(shares)]} |"
        for row in rows()
        if row.name in shares
        for share in [shares[row.name]]
    ]
    return "\n".join(
        ["| ability | share | 95 % interval | n | wanted | met |", "| --- | --- | --- | --- | --- | --- |", *lines]
    )
