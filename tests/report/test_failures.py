"""Blanket refusal and broken language come first in every output, and nothing else is left out."""

import json
import re

import pytest

from cai_base import cli
from cai_base.records import Results
from cai_base.report import page
from cai_base.report.load import load
from cai_base.report.table import render

from .conftest import MakeRun

REFUSES = "Full CAI: blanket refusal: refuses "
BREAKS = "SFT-only: broken language: "


def kinds(results: Results) -> list[tuple[str, str]]:
    return [(failure.arm, failure.kind) for failure in results.failures]


def test_a_healthy_run_names_nothing(make_run: MakeRun) -> None:
    run = make_run(helpful=True)
    stored = load(run)
    assert stored.results.failures == ()
    for text in (render(run), page.html(stored, []), page.markdown(stored, [])):
        assert "FAILURE" not in text
        assert "<strong>Failure." not in text
        assert "**Failure:**" not in text
        assert "✗" not in text


def test_failures_come_first_and_warnings_before_the_table(make_run: MakeRun) -> None:
    run = make_run(broken="sft", warnings=("lengths were clipped",))
    stored = load(run)
    assert kinds(stored.results) == [("cai", "blanket refusal"), ("sft", "broken language")]
    shown = {
        "terminal": (render(run), "FAILURE: ", "\nAttack success"),
        "html": (
            re.sub("</?span[^>]*>", "", page.html(stored, []).split("</h1>")[1]),
            "<strong>Failure.</strong> ",
            "<table>",
        ),
        "markdown": (page.markdown(stored, []), "> **Failure:** ", "| --- |"),
    }
    for text, mark, table in shown.values():
        first, second, warning = (text.index(s) for s in (mark + REFUSES, mark + BREAKS, "lengths were clipped"))
        answer, figures = text.index("On jailbreak prompts"), text.index(table)
        assert first < second < min(warning, answer) < max(warning, answer) < figures
        assert "preference pairs; filtered" in text
    assert shown["terminal"][0].startswith("FAILURE: ")


def test_the_table_marks_the_figure_that_failed(make_run: MakeRun) -> None:
    run = make_run(broken="sft")
    stored = load(run)
    lines = page.markdown(stored, []).splitlines()
    refusal, language = (next(line for line in lines if line.startswith(f"| {row}")) for row in ("Over-ref", "Broken"))
    assert refusal.count("✗ blanket refusal") == 1
    assert "✗ broken language" in language.split("|")[2]
    assert "✗ blanket refusal" in render(run)
    assert page.html(stored, []).count('class="note failed"') == 2


def test_without_a_judge_broken_language_is_still_named(make_run: MakeRun) -> None:
    results = load(make_run(judged=False, broken="cai")).results
    assert kinds(results) == [("cai", "broken language")]


def test_json_has_the_failures(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(broken="cai")
    assert cli.main(["report", str(run), "--json"]) == 0
    failures = json.loads(capsys.readouterr().out)["failures"]
    assert failures[0].keys() == {"arm", "kind", "metric", "mean", "seeds", "text"}
    assert [failure["kind"] for failure in failures] == ["blanket refusal", "broken language"]
