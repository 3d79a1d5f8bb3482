"""What `style.json` says, as tables and sentences for the terminal and both pages."""

import json
from collections.abc import Mapping
from pathlib import Path

from cai_base.report.labels import ARMS, Measure
from cai_base.report.tables import (
    NONE,
    ORDER,
    UNSCORED,
    Cell,
    Row,
    Table,
    difference_cell,
    p_value_text,
    pair_name,
    plain_cell,
)
from cai_base.store import Record, read_lines

FILE = "style.json"
SHOWN = ("pirate", "poetic", "shouting")
"""Styles of which answers are shown: one of each kind."""

KINDS = {"register": "register", "language": "language style", "persona": "persona"}


def load(directory: Path) -> Record | None:
    """What the style evaluation of a run found; None if there was none."""
    path = directory / FILE
    found: Record | None = json.loads(path.read_bytes()) if path.exists() else None
    return found


def measures(style: Record) -> dict[str, Measure]:
    """Every measure by its name, with words for what it is."""
    chance = f"{100 * style['chance']:.1f} %"
    samples, world = style["samples"], style["data"] == "world"
    known = {
        "adherence": Measure(
            "Adherence",
            "rate" if world else "score",
            "answers that wear the style asked for; ground truth" if world else "to the style asked for; the judge's",
        ),
        "markers": Measure("Markers", "rate", "share of the style's marks that an answer bears"),
        "distinctiveness": Measure(
            "Distinctiveness", "rate", f"answers whose style is told from the other questions' answers; chance {chance}"
        ),
        "diversity": Measure("Diversity", "share", f"1 − similarity of the {samples} samples of a prompt"),
        "gibberish": Measure("Gibberish", "rate", "never counted as adherence; lower is better"),
        "helped": Measure("Helped", "rate", "answers that tell two facts of three or more; ground truth"),
    }
    measured = set().union(*style["arms"].values())
    return {name: measure for name, measure in known.items() if name in measured}


def style_table(style: Record) -> Table:
    """Every measure of every arm, with the differences that were asked for."""
    arms, pairs = _arms(style), [pair for pair in ("cai - sft", "cai - instruct") if pair in style["comparisons"]]
    rows = []
    for name, measure in measures(style).items():
        cells = [_figure(measure, style["arms"][arm], name) for arm in arms]
        cells += [difference_cell(measure, style["comparisons"][pair][name]) for pair in pairs]
        rows.append(Row(f"{measure.label} ({measure.unit})", tuple(cells), measure.about))
    return Table("style", (*(ARMS[arm] for arm in arms), *(pair_name(pair) for pair in pairs)), tuple(rows))


def by_style_table(style: Record) -> Table:
    """Adherence, style by style."""
    arms, measure = _arms(style), measures(style)["adherence"]
    rows = [
        Row(
            name,
            tuple(plain_cell(measure, style["arms"][arm]["by_style"][name]["adherence"]) for arm in arms),
            KINDS[kind],
        )
        for name, kind in style["styles"].items()
    ]
    return Table(f"adherence ({measure.unit})", tuple(ARMS[arm] for arm in arms), tuple(rows))


def comparison_table(style: Record) -> Table:
    """The difference in adherence of every pair of arms."""
    measure = measures(style)["adherence"]
    rows = [
        Row(
            pair_name(pair),
            (difference_cell(measure, found["adherence"]), Cell(p_value_text(found["adherence"]["p_value"]))),
        )
        for pair, found in style["comparisons"].items()
    ]
    return Table(f"difference in adherence ({measure.unit})", ("difference", "p"), tuple(rows))


def answer(style: Record) -> str:
    """Whether full CAI keeps more style than the instruct model, in a sentence or two."""
    found = style["keeps_more_style"]
    if found is None:
        missing = ", ".join(ARMS[arm] for arm in ("cai", "instruct") if arm not in style["arms"])
        return f"Does base-derived CAI keep more style than the instruct model? Not asked here: {missing} is missing."
    measure = measures(style)["adherence"]
    if found["difference"] is None:
        return f"{found['question']} Unscored: no answer of both was judged."
    words = {
        "yes": "Yes",
        "no, less": "No, less",
        "cannot be told": "That cannot be told",
        "no interval": "No interval",
    }
    unit = " points" if measure.scale == "rate" else ""
    difference = measure.number(found["difference"], signed=True)
    interval = measure.interval(found["ci95"], signed=True)
    return (
        f"{found['question']} {words[found['answer']]}: the difference in adherence is {difference}{unit}"
        f"{f' {interval}' if interval else ''}."
    )


def notes(style: Record) -> list[str]:
    """What stands beside the table: how it was asked, what brackets are, what is unscored."""
    said = [
        f"{len(style['styles'])} styles × {len(style['questions'])} neutral questions × {style['samples']} samples × "
        f"{len(style['seeds'])} seeds; each arm asked in its own layout. Judge: {style['judge'] or 'none'}. Brackets: "
        f"{style['intervals']}."
    ]
    for arm in _arms(style):
        found = style["arms"][arm]
        if found["unscored"]:
            reasons = ", ".join(f"{number} {reason}" for reason, number in found["unscored"].items())
            said.append(f"{ARMS[arm]}: {found['scored']} of {found['answers']} answers scored ({reasons}).")
    arms = {ARMS[arm]: style["arms"][arm] for arm in _arms(style)}
    cut = [f"{name} {arm['truncated']} of {arm['answers']}" for name, arm in arms.items() if arm["truncated"]]
    if cut:
        said.append(f"Cut off at the longest length: {', '.join(cut)}.")
    return said


def examples(directory: Path, style: Record) -> list[Record]:
    """For one style of each kind the first question, with every arm's first answer of the first seed it has."""
    shown = []
    for name in SHOWN:
        arms = {arm: _first(directory / "style" / arm, style, name) for arm in _arms(style)}
        found = {ARMS[arm]: record for arm, record in arms.items() if record is not None}
        if found:
            prompt = next(iter(found.values()))["prompt"]
            shown.append({"style": name, "prompt": prompt, "arms": [_shown(n, r, style) for n, r in found.items()]})
    return shown


def _first(folder: Path, style: Record, name: str) -> Record | None:
    files = (folder / f"seed-{seed}.jsonl" for seed in style["seeds"])
    records = (record for path in files if path.exists() for record in read_lines(path) if record["style"] == name)
    return next(records, None)


def _shown(arm: str, record: Record, style: Record) -> Mapping[str, object]:
    adherence = record["adherence"]
    if adherence is None:
        mark = (f"unscored: {record['unscored']}", "plain")
    elif style["data"] == "world":
        mark = ("in the style", "good") if adherence else ("not in the style", "bad")
    else:
        mark = (f"adherence {adherence:g} of 5", "plain")
    marks = [mark, *([("gibberish", "bad")] if record["gibberish"] else [])]
    return {"name": arm, "text": record["response"], "marks": marks}


def _arms(style: Record) -> list[str]:
    return sorted(style["arms"], key=ORDER.index)


def _figure(measure: Measure, arm: Record, name: str) -> Cell:
    found = arm[name]
    if found["mean"] is None:
        return Cell(UNSCORED if name == "adherence" else NONE)
    partly = name == "adherence" and arm["scored"] < arm["answers"]
    note = f"({arm['scored']} of {arm['answers']} scored)" if partly else ""
    return Cell(measure.number(found["mean"]), measure.interval(found["ci95"]), note)
