"""The suites that a run's arms were asked, on its pages."""

import json
import shutil
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import pytest

from cai_base.errors import UserError
from cai_base.records import ATTACK
from cai_base.report import write
from cai_base.report.load import load_suite
from cai_base.report.numbers import RATE, interval, number
from cai_base.report.suites import section
from cai_base.store import Run, to_json

from .conftest import HOSTILE, MakeRun, results_of_a_suite

Ask = Callable[..., Path]

HEAD = "schema of model base model_organism engine seeds layouts intervals comparisons warnings".split()


@pytest.fixture
def ask(make_run: MakeRun, tmp_path: Path) -> Ask:
    """Stores the results of a suite in a copy of a run's directory, and returns that directory."""
    run = tmp_path / "run"
    shutil.copytree(make_run(seeds=1, arms="sft"), run)

    def asked(folder: str, **fields: Any) -> Path:
        results = results_of_a_suite(json.loads((run / "results.json").read_bytes())) | fields
        Run.create(run / "suites" / folder, {"suite": {"name": folder}}, {"results.json": to_json(results)})
        return run

    return asked


def pages(run: Path) -> list[str]:
    return [path.read_text("utf-8") for path in write(run)]


def test_a_run_without_suites_has_no_section_for_them(make_run: MakeRun) -> None:
    html, markdown = pages(make_run(seeds=1, arms="sft"))
    assert 'id="suites"' not in html
    assert "## Suites" not in markdown


def test_both_pages_have_each_suite_with_its_figures_intervals_and_warnings(ask: Ask) -> None:
    ask("mine", warnings=["the judge was slow"])
    run = ask("mine-2")
    figure = json.loads((run / "results.json").read_bytes())["arms"]["sft"][ATTACK]
    shown = interval(RATE, figure["ci95"])
    html, markdown = pages(run)
    section = html[html.index('id="suites"') : html.index('id="figures"')]
    assert section.count("<h3>mine</h3>") == 2
    assert section.index("suites/mine<") < section.index("suites/mine-2<")
    assert section.count(f'{number(RATE, figure["mean"])} <span class="interval">{shown}</span>') >= 2
    assert section.count("<li>the judge was slow</li>") == 1
    part = markdown[markdown.index("## Suites") : markdown.index("## Figures")]
    assert part.count("### mine\n") == 2
    assert part.count(shown.replace("[", "\\[").replace("]", "\\]")) >= 2


def test_comparisons_are_shown_with_their_accuracies(ask: Ask) -> None:
    accuracy = {
        "mean": 0.75,
        "ci95": [0.5, 0.9],
        "per_seed": [0.75],
        "std": None,
        "ci95_seeds": None,
        "scored": 30,
        "total": 40,
    }
    accuracy |= {"worst_case": [0.5625, 0.8125], "ci95_over": "prompts"}
    arms = {"sft": {"summed": accuracy, "normalised": accuracy}}
    asked = {"name": "hhh", "files": ["hhh.jsonl"], "sha256": "0", "comparisons": 40, "asked": 40}
    run = ask("hhh")
    file = run / "suites/hhh/results.json"
    head = {name: value for name, value in json.loads(file.read_bytes()).items() if name in HEAD}
    Run.open(run / "suites/hhh").commit(write={"results.json": to_json(head | {"suite": asked, "arms": arms})})
    html, _ = pages(run)
    section = html[html.index('id="suites"') : html.index('id="figures"')]
    assert '75.0 <span class="interval">[50.0, 90.0]</span> <span class="note">(30 of 40)</span>' in section


@pytest.mark.parametrize("base", [True, False])
def test_arms_whose_broken_answers_are_repetition_alone_are_named(ask: Ask, base: bool) -> None:
    results = load_suite(ask("mine") / "suites" / "mine")
    figures = results.arms["sft"]
    unmeasured = {**figures, "fluency": figures["fluency"].model_copy(update={"mean": None})}
    arms = {"base": figures, "sft": figures, "instruct": unmeasured} if base else {"sft": unmeasured}
    notes = section(results.model_copy(update={"arms": arms}), "here").notes
    whose = "the answers of Instruct, whose" if base else "these answers, so"
    assert any(f"No base model measured {whose} broken language is endless repetition alone." in one for one in notes)


def test_hostile_names_stay_text(ask: Ask) -> None:
    run = ask("mine", warnings=[HOSTILE], suite=suite_named(HOSTILE))
    html, markdown = pages(run)
    assert "<script>alert" not in html
    assert escape(HOSTILE.splitlines()[0], quote=False) in html.replace("&#34;", '"')
    assert "<script>" not in markdown.split("## Figures")[0]


def suite_named(name: str) -> dict[str, Any]:
    counts = {"prompts": 24, "asked": 24, "attacks": 24, "apart": 0, "safe": 0, "left_out": {name: 3}}
    return {"name": name, "files": ["mine.jsonl"], "sha256": "0"} | counts


def test_results_that_are_not_a_suite_s_are_refused_with_their_file(ask: Ask) -> None:
    run = ask("mine", layouts=[])
    with pytest.raises(UserError, match=r"suites/mine/results\.json"):
        write(run)
