"""The two pages, from the same content: HTML that stands alone, and Markdown. Model text never leaves its quotes."""

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cai_base import __version__
from cai_base.evaluation.metrics import ATTACKS
from cai_base.inputs.prompts import HARMLESS
from cai_base.report import examples as chosen
from cai_base.report import style
from cai_base.report.figures import Group
from cai_base.report.headline import headline
from cai_base.report.labels import ARMS, GLOSSARY, MEASURES, ORGANISM, failures, kind_of
from cai_base.report.load import Stored
from cai_base.report.notes import notes
from cai_base.report.tables import (
    Table,
    comparison_table,
    coverage_table,
    family_table,
    main_table,
    pair_sentence,
    round_table,
)
from cai_base.store import Record


def html(stored: Stored, groups: Sequence[Group]) -> str:
    """`report.html`: one file, no script, nothing loaded."""
    environment = Environment(
        loader=PackageLoader("cai_base.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(_content(stored, groups))


def markdown(stored: Stored, groups: Sequence[Group]) -> str:
    """`report.md`: every value is escaped, every model text fenced."""
    environment = Environment(
        loader=PackageLoader("cai_base.report"),
        autoescape=False,
        finalize=lambda value: value if isinstance(value, Markdown) else escaped(str(value)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    tools = {"fenced": fenced, "laid_out": laid_out}
    return environment.get_template("report.md").render(_content(stored, groups) | tools)


def _content(stored: Stored, groups: Sequence[Group]) -> dict[str, Any]:
    """What both templates are given."""
    results = stored.results
    prefill = stored.config["revision"]["refusal-prefill"]
    return {
        "results": results,
        "failures": failures(results),
        "headline": headline(results),
        "organism": ORGANISM,
        "facts": _facts(results),
        "main": main_table(results),
        "notes": notes(results),
        "families": family_table(results),
        "coverage": coverage_table(results),
        "comparisons": comparison_table(results),
        "rounds": round_table(results),
        "pairs": pair_sentence(results),
        "groups": groups,
        "prefill": f"{prefill:.0%}" if prefill else "",
        "opened": _opened(stored.results["revision"]["prefilled"]),
        "chains": [_chain(stored, candidate) for candidate in chosen.chains(stored)],
        "answers": [_answers(stored, candidate) for candidate in chosen.answers(stored)],
        "style": _style(stored),
        "command": command(stored.config),
        "version": __version__,
        "glossary": GLOSSARY,
    }


def _style(stored: Stored) -> Record | None:
    """What the style evaluation found, where there was one."""
    found = style.load(stored.directory)
    if found is None:
        return None
    return {
        "answer": style.answer(found),
        "table": style.style_table(found),
        "notes": style.notes(found),
        "by_style": style.by_style_table(found),
        "comparisons": style.comparison_table(found),
        "examples": style.examples(stored.directory, found),
    }


def _facts(results: Record) -> list[tuple[str, str]]:
    constitution, seeds = results["constitution"], results["seeds"]
    protocols = {
        "heldout": "held out: no evaluation prompt is a prompt of the method",
        "original": "original: the method's prompts are also evaluation prompts",
    }
    return [
        ("Model", f"{results['model']} (a model organism)" if results["model_organism"] else results["model"]),
        *([("Instruct model", results["instruct"])] if results["instruct"] else []),
        ("Seeds", f"{len(seeds)} ({', '.join(map(str, seeds))})"),
        ("Protocol", protocols.get(results["protocol"], results["protocol"])),
        ("Judge", "none: answers are unscored" if results["judge"] == "none" else results["judge"]),
        *_second_judge(results),
        *_votes(results),
        ("Constitution", f"{constitution['name']}, {constitution['principles']} principles"),
        ("Engine", results["engine"]),
    ]


def _second_judge(results: Record) -> list[tuple[str, str]]:
    """How far the second judge agrees with the first, where there is one, and its attack success rates."""
    second = results.get("second_judge")  # a run of an earlier version has none
    if not second:
        return []
    alphas = ", ".join(
        f"{part} {'–' if found['alpha'] is None else format(found['alpha'], '.2f')} ({found['answers']} answers)"
        for part, found in second["agreement"].items()
    )
    asr = MEASURES["attack_success_rate"]
    rates = ", ".join(
        f"{ARMS[arm]} {asr.number(found['attack_success_rate']['mean'])} %"
        for arm, found in second["arms"].items()
        if found["attack_success_rate"]["mean"] is not None
    )
    said = f"{second['name']}; Krippendorff's alpha with the first: {alphas or 'no answer was scored by both'}"
    return [("Second judge", f"{said}. Its attack success rate: {rates or '–'}")]


def _votes(results: Record) -> list[tuple[str, str]]:
    """How far the votes agree, where there were several."""
    found = results.get("vote_agreement")  # a run of an earlier version has none
    if not found:
        return []
    alphas = ", ".join(f"{part} {'–' if value is None else f'{value:.2f}'}" for part, value in found.items())
    return [("Votes", f"{results['votes']} an answer; Krippendorff's alpha: {alphas}")]


def _chain(stored: Stored, candidate: chosen.Candidate) -> Record:
    """A revision chain as it is shown: each response with its marks, each round with its principle's request."""
    chain = candidate.first
    responses = [chain["original"], *(one["revision"] for one in chain["rounds"])]
    reasons = chain.get("unscored") or [None] * len(responses)  # a run of an earlier version has none
    marked = [
        {"text": text, "marks": marks(chain["kind"], verdict, unscored)}
        for text, verdict, unscored in zip(responses, chain["verdicts"], reasons, strict=True)
    ]
    return {
        **_heading(candidate),
        "opener": chain["refusal_opener"],
        "outcome": chain["outcome"],
        "original": marked[0],
        "rounds": [
            {**one, "number": number, "request": stored.principles.get(one["principle"], ""), "revision": revision}
            for number, (one, revision) in enumerate(zip(chain["rounds"], marked[1:], strict=True), start=1)
        ],
        "last": marked[-1],
    }


def _answers(stored: Stored, candidate: chosen.Candidate) -> Record:
    arms = chosen.compared(stored)
    return {
        **_heading(candidate),
        "arms": [
            {
                "name": ARMS[arm],
                "text": record["response"],
                "marks": marks(record["kind"], record["verdict"], record["unscored"], record["truncated"]),
            }
            for arm, record in zip(arms, candidate.records, strict=True)
        ],
    }


def _heading(candidate: chosen.Candidate) -> Record:
    first = candidate.first
    return {
        "story": candidate.story,
        "seed": candidate.seed,
        "id": first["id"],
        "kind": kind_of(first),
        "prompt": first["prompt"],
    }


def marks(
    kind: str | None, verdict: Record | None, unscored: str | None = None, truncated: bool = False
) -> list[tuple[str, str]]:
    """What the judge found, as words, each with its tone: good, bad or plain."""
    if verdict is None:
        found = [(f"unscored: {unscored}" if unscored else "unscored", "plain")]
    else:
        attack, harmless = kind in ATTACKS, kind in HARMLESS
        found = []
        if verdict["complied"]:
            found.append(("complied", "bad" if attack else "good" if harmless else "plain"))
        if verdict["refused"]:
            found.append(("refused", "good" if attack else "bad" if harmless else "plain"))
        if verdict["gibberish"]:
            found.append(("gibberish", "bad"))
        if not found and verdict["complied"] is not None:
            found.append(("neither complied nor refused", "plain"))
        if not attack and verdict["helpfulness"] is not None:
            found.append((f"helpfulness {verdict['helpfulness']:g} of 5", "plain"))
        if unscored:
            found.append((f"unscored: {unscored}", "plain"))
    return [*found, ("truncated", "plain")] if truncated else found


def command(config: Record) -> str:
    """The command that makes this run again, with every setting as a flag."""
    flags = (f"--{name} {shlex.quote(str(value))}" for name, value in _leaves(config) if value is not None)
    return " ".join(("cai-base run", *flags))


def _leaves(value: Record, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from _leaves(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner


class Markdown(str):
    """Text that is Markdown already."""

    __slots__ = ()


def escaped(text: str) -> Markdown:
    """The text as one line of Markdown that shows exactly it: no markup, no HTML, no table cell ends in it."""
    line = re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", " ".join(text.split()))
    return Markdown(line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def fenced(text: str) -> Markdown:
    """The text as a code block, whose fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markdown(f"{fence}text\n{text}\n{fence}")


def laid_out(table: Table) -> Markdown:
    """The table in Markdown."""
    if table.empty:
        return escaped(f"{table.corner.capitalize()}: unscored.")
    rows = [
        [table.corner, *table.columns],
        ["---", *["---:" for _ in table.columns]],
        *([_named(row.name, row.about), *(cell.text() for cell in row.cells)] for row in table.rows),
    ]
    return Markdown("\n".join(f"| {' | '.join(escaped(cell) for cell in row)} |" for row in rows))


def _named(name: str, about: str) -> str:
    return f"{name}: {about}" if about else name


def _opened(prefilled: Record) -> dict[str, str]:
    """How many originals were made to begin with a refusal, and how many of the harmful ones ended by complying."""
    last = prefilled["harmful_by_round"][-1]
    return {"chains": str(prefilled["chains"]), "harmful": "" if last is None else f"{last:.0%}"}
