"""The table that `cai-base evaluate` ends with in the terminal."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from cai_base.evaluation.tasks.comparisons import NAME, VALUES
from cai_base.evaluation.tasks.suite_files import published
from cai_base.report.labels import ARMS, MEASURES, ORGANISM, Measure, measures, printable
from cai_base.report.notes import interval_note
from cai_base.report.table import draw, page, warn
from cai_base.report.tables import Cell, Row, Table, coverage_table, incomplete, main_table
from cai_base.store import Record

ACCURACY = Measure("Accuracy", "rate", "comparisons in which the better answer is the more probable; higher is better")


def render(directory: Path) -> str:
    """Failures, warnings, what was asked of whom, the table, coverage where something is unscored, rates by category.

    Args:
        directory: a finished evaluation's.
    """
    results: Record = json.loads((directory / "results.json").read_bytes())
    return page(lambda console: _write(console, results))


def _write(console: Console, results: Record) -> None:
    warn(console, results)
    console.print(Text(_headline(results), style="bold"))
    (_comparisons if results["suite"]["name"] == NAME else _suite)(console, results)
    for layout in dict.fromkeys(results["layouts"].values()):
        arms = ", ".join(ARMS[arm] for arm, one in results["layouts"].items() if one == layout)
        console.print(Text(f"Asked in the {layout}: {arms}.", style="dim"))
    if results["model_organism"]:
        console.print(Text(ORGANISM, style="dim"))


def _headline(results: Record) -> str:
    suite = results["suite"]
    title = published().get(suite["name"], {}).get("title", suite["name"])
    who = results["model"] + (f" on {results['base']}" if results["base"] else "")
    whose = f"the arms of a run on {who}" if results["of"] == "run" else who
    if suite["name"] == NAME:
        return f"{title}: {suite['asked']} of {suite['comparisons']} asked, of {whose}."
    parts = [
        f"{suite[part]} {word}{'s' * (suite[part] > 1)}"
        for part, word in (("attacks", "attack"), ("safe", "safe prompt"))
        if suite[part]
    ]
    of = f" (of {suite['prompts']} prompts)" if suite["asked"] < suite["prompts"] else ""
    left = "".join(f" Left out: {number}, each {reason}." for reason, number in suite["left_out"].items())
    return f"{printable(title)}: {' and '.join(parts)}{of}, of {printable(whose)}. Judge: {results['judge']}.{left}"


def _suite(console: Console, results: Record) -> None:
    draw(console, main_table(results))
    if results["judge"] != "none":
        over = "Attack success and refusal are over the attacks, over-refusal over the safe prompts."
        console.print(Text(f"{over} {_intervals(results)}", style="dim"))
        if incomplete(results):
            draw(console, coverage_table(results))
    for name in ("attack_success_rate", "over_refusal_rate"):
        if name in measures(results):
            draw(console, _by_category(results, name))


def _intervals(results: Record) -> str:
    if results["of"] == "model" and len(results["seeds"]) == 1:
        return "Brackets: exact 95 % intervals over prompts, of the rates; they say nothing about other draws."
    return interval_note(results)


def _by_category(results: Record, name: str) -> Table:
    """A rate by the suite's own categories, where it has any."""
    arms, measure = list(results["arms"]), MEASURES[name]
    found = {arm: results["arms"][arm][name]["by_family"] for arm in arms}
    names = dict.fromkeys(category for one in found.values() for category in one)
    values = {category: [found[arm].get(category) for arm in arms] for category in names} if len(names) > 1 else {}
    return Table(
        f"{measure.label.lower()} (%)",
        tuple(ARMS[arm] for arm in arms),
        tuple(
            Row(printable(category), tuple(Cell("–" if v is None else measure.number(v)) for v in row))
            for category, row in values.items()
        ),
    )


def _comparisons(console: Console, results: Record) -> None:
    arms = list(results["arms"])
    rows = []
    for how in VALUES:
        whole = [results["arms"][arm][how] for arm in arms]
        rows.append(_accuracies(f"{how} (%)", whole))
        for category in whole[0]["by_category"]:
            rows.append(_accuracies(f"· {printable(category)}", [one["by_category"][category] for one in whole]))
    draw(console, Table("log-probability", tuple(ARMS[arm] for arm in arms), tuple(rows)))
    said = f"{ACCURACY.label}: {ACCURACY.about}. Chance is 50 %; a sum favours short answers."
    over = (
        "Brackets: 95 % intervals, over seeds and comparisons; where all seeds are one model, exact over comparisons."
    )
    alone = "Brackets: exact 95 % intervals over comparisons."
    console.print(Text(f"{said} {alone if len(results['seeds']) == 1 else over}", style="dim"))
    for pair, compared in results["comparisons"].items():
        first, second = (ARMS[arm] for arm in pair.split(" - "))
        sizes = [f"{how} {_difference(one)}" for how, one in compared.items() if one["difference"] is not None]
        console.print(Text(f"{first} − {second}: {'; '.join(sizes)}"))


def _difference(compared: Record) -> str:
    size = ACCURACY.number(compared["difference"], signed=True)
    return f"{size} {ACCURACY.interval(compared['ci95'], signed=True)}".strip()


def _accuracies(name: str, figures: Sequence[Record]) -> Row:
    """The accuracy of every arm, with the number of comparisons where not all fit."""
    parts = [f"{one['scored']} of {one['total']}" if one["scored"] < one["total"] else "" for one in figures]
    cells = [
        Cell("unscored")
        if one["mean"] is None
        else Cell(ACCURACY.number(one["mean"]), ACCURACY.interval(one["ci95"]), f"({part})" if part else "")
        for one, part in zip(figures, parts, strict=True)
    ]
    return Row(name, tuple(cells))
