"""Hostile text on every surface: what a model, a judge or a file says is shown and never done.

The rows of the table in SECURITY.md. The page in a real browser: tests/report/test_reader.py; servers that judge:
tests/evaluation/test_endpoint_faults.py; the terminal of a conversation: tests/run/test_chat_command.py.
"""

import json
import os
import re
import shutil
import subprocess
import threading
import time
from html.parser import HTMLParser
from itertools import count, pairwise
from pathlib import Path

import pytest
import report.conftest as made
import yaml
from markdown_it import MarkdownIt
from starlette.responses import JSONResponse

from cai_base import paths
from cai_base.arms import ARMS
from cai_base.cli import main
from cai_base.errors import UserError
from cai_base.inputs.prompts import load_prompts
from cai_base.integrations.export.card import CardFacts, model_card
from cai_base.integrations.tracking.send import Sender, begin
from cai_base.integrations.watch_server import WatchServer
from cai_base.records import Answer
from cai_base.records.compared import RunsCompared
from cai_base.report import compare, page, study_page, watch
from cai_base.report.load import StoredRun, load
from cai_base.report.table import render
from cai_base.store import MANIFEST, TRACKERS, Run
from cai_base.studies.folder import RESULTS
from cai_base.text import LONGEST_LINE, for_terminal, without_controls

TEXTS = {
    "script": '<script>document.title="owned"</script>',
    "event handler": '<img src=x onerror="document.title=1"><svg onload=alert(1)>',
    "closing tags": "</pre></blockquote></td></table></script></style></body>",
    "template": "{{ 7*'7' }}{% raw %}${7*7}<%= 7 %>",
    "Markdown": "```\n````\n# owned\n[x](javascript:alert(1)) ![x](http://evil.example/x.png) | a |\n---\n",
    "ANSI and OSC": "\x1b[2J\x1b]0;owned\x07\x1b]8;;http://evil.example\x1b\\\x9b31m",
    "direction": "\u202eevil\u2066\u202d",
    "zero width": "a\u200b\u2060\ufeffb",
    "NUL": "a\x00b\x08\x7f",
    "line separators": "a\u2028b\u2029c\x85d\re",
    "a long line": "y" * 40_000,
}
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069]")
"""What makes a terminal or a reader of text do something, or hides text in it."""


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    """A run whose model says all of the texts, and whose constitution and warnings hold them."""
    every = "\n".join(text for text in TEXTS.values())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made, "HOSTILE", every)
        directory = made._make(tmp_path_factory, seeds=1, warnings=(every[:2000],))
    run = load(directory)
    constitution = run.results.constitution.model_copy(update={"name": every[:2000]})
    results = run.results.model_copy(update={"constitution": constitution})
    return StoredRun(run.run, results, run.settings, run.principles)


@pytest.mark.parametrize("name", TEXTS)
def test_a_terminal_shows_every_text_and_does_none(name: str) -> None:
    shown = for_terminal(TEXTS[name])
    assert not CONTROLS.search(shown)
    assert max(map(len, shown.split("\n"))) < 12 * LONGEST_LINE
    if name in ("script", "event handler", "template"):
        assert shown == TEXTS[name]


def test_a_terminal_is_given_no_control_by_tables_or_messages(
    stored: StoredRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not CONTROLS.search(render(stored.directory))
    hostile = tmp_path / "x\x1b]0;owned\x07\u202e.toml"
    hostile.write_text('principles = "\x1b[2J"')
    for command in (["report", f"{tmp_path}/\x1b[2J\u202e"], ["run", "--constitution", str(hostile)]):
        assert main(command) == 2
        assert not CONTROLS.search(capsys.readouterr().err)


TERMINALS = count()


def _terminal(text: str, folder: Path) -> tuple[str, str]:
    """The title and the lines of a real terminal, tmux's, after a line `before`, the text and a line `after`."""
    (folder / "text").write_text(f"before\n{text}\nafter\n", encoding="utf-8")
    # A server of its own: that of the last terminal may still be ending, and would take a new session with it.
    tmux = ["tmux", "-L", f"hostile-{os.getpid()}-{next(TERMINALS)}"]
    size = ["-x", "120", "-y", "900"]
    subprocess.run([*tmux, "-f/dev/null", "new-session", "-d", *size, f"cat {folder}/text; sleep 60"], check=True)
    try:
        for _ in range(120):
            time.sleep(0.25)
            told = [
                subprocess.run([*tmux, *words], check=True, capture_output=True, text=True).stdout
                for words in (["display", "-p", "#{pane_title}"], ["capture-pane", "-p"])
            ]
            if "after" in told[1]:
                return told[0].strip(), told[1]
        raise AssertionError(told[1])
    finally:
        subprocess.run([*tmux, "kill-server"], check=True)


@pytest.mark.skipif(shutil.which("tmux") is None, reason="needs a terminal")
def test_in_a_real_terminal_no_text_of_a_run_renames_or_clears_it(stored: StoredRun, tmp_path: Path) -> None:
    title, lines = _terminal(TEXTS["ANSI and OSC"], tmp_path)
    assert title == "owned", "as it is, the text does what it says"
    assert "before" not in lines
    texts = "\n".join(for_terminal(text) for text in TEXTS.values())
    title, lines = _terminal(f"{texts}\n{render(stored.directory)}", tmp_path)
    assert title != "owned"
    assert lines.startswith("before\n")
    assert "\\x1b[2J\\x1b]0;owned" in lines


class Elements(HTMLParser):
    """The tags and attributes of a page, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [name for name, _ in attributes if name.startswith("on") or name in ("srcdoc", "formaction")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_has_the_texts_as_text_and_no_element_of_theirs(stored: StoredRun) -> None:
    html = page.html(stored, [])
    elements = Elements(html)
    assert elements.handlers == []
    assert elements.tags.count("script") == 3, "the figures' values, the reader's texts, and the one script"
    assert {"img", "iframe", "object", "embed", "form", "base", "link"}.isdisjoint(elements.tags)
    for name in ("script", "event handler", "closing tags", "template"):
        assert TEXTS[name] in elements.text, name
    assert "unicode-bidi: isolate" in html, "a text that turns the direction of writing turns no other's"
    assert "default-src 'none'" in html


def _study(every: str, folder: Path) -> str:
    """The page of a study of one cell, in whose results every text is hostile. Its figure has the comparison's name."""
    over = {"std": None, "ci95_seeds": None, "ci95": (-0.4, -0.2), "ci95_over": "seeds and prompts"}
    figure = {"mean": 0.5, "per_seed": (0.5,), "scored": 2, "answered": 2, "total": 2, "worst_case": (0.5, 0.5)}
    difference = {"difference": -0.3, "p_value": 0.01, "minimum_detectable": 0.3, "to_detect": None, "seeds": 1}
    failure = {"arm": "cai", "kind": every, "metric": "attack_success_rate", "mean": 1.0, "seeds": (0,), "text": every}
    cell = {"levels": {every: every}, "arm": "cai", "run": every, "minus_sft": {}, "failures": (failure,)}
    in_one_line = f"$\\x$ {' '.join(every.split())[:2000]}"  # in a figure, math with a command that there is not
    compared = {"name": in_one_line, "first": (0,), "second": (0,), "scale": 1}
    texts = dict.fromkeys(("study", "question", "about", "model", "judge", "engine", "intervals"), every)
    results = texts | {
        "schema": 1,
        "model_organism": False,
        "seeds": (0,),
        "prompts": {every: 2},
        "factors": {every: (every,)},
        "primary": ("attack_success_rate",),
        "cells": (cell | {"figures": {"attack_success_rate": figure | over | {"by_family": {every: 0.5}}}},),
        "comparisons": (compared | {"metrics": {"attack_success_rate": difference | over}},),
        "shared": {every: {every: every}},
        "warnings": {f"{every}{'z' * (1 << 20)}": (every,)},
    }
    (folder / RESULTS).write_text(json.dumps(results), encoding="utf-8")
    return study_page.write(folder).read_text(encoding="utf-8")


def _small_pages() -> dict[str, str]:
    """The page of a chat and that of a comparison, in which every text of a person, a model or a file is hostile."""
    every = "\n".join(TEXTS.values())
    run = {"model": every, "model_organism": False, "judge": every, "seeds": (0,), "arms": {}}
    against = {"run": every, "seeds": (), "prompts": 0, "arms": {}, "same_answers": (), "left_out": ()}
    compared = {
        "schema": 1,
        "runs": ({"name": every, **run}, {"name": "other", **run}),
        "settings": {every: (json.dumps(every), json.dumps("x"))},
        "against_first": (against,),
        "warnings": (every,),
    }
    return {
        "chat": watch.chat_html(
            every,
            [watch.Exchange(every, [(every, every)]), watch.Exchange("long", [("long", "z" * (1 << 20))])],
            error=every,
            draft=every,
        ),
        "compare": compare.html(RunsCompared.model_validate(compared)),
    }


def _in_chromium(address: str, folder: Path) -> str:
    """The page at an address after its scripts, if it has any, have run."""
    flags = "--headless --no-sandbox --disable-gpu --virtual-time-budget=4000 --dump-dom".split()
    command = ["chromium", *flags, f"--user-data-dir={folder}/profile", address]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def at_work(stored: StoredRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run before its results, in a folder with a hostile name; its newest chain is of hostile texts."""
    run = tmp_path_factory.mktemp("watch") / "<img src=x onerror=document.title=1>"
    shutil.copytree(stored.directory, run)
    every, longest = "\n".join(TEXTS.values()), "z" * (1 << 20)
    file = run / paths.chains(0)
    *others, last = file.read_text(encoding="utf-8").rstrip("\n").split("\n")
    rounds = [
        {"principle": every[:2000], "critique": every, "revision": longest},
        {"principle": "kind", "critique": f"{longest}\x1b[2J", "revision": every},
    ]
    newest = json.dumps(json.loads(last) | {"prompt": every, "original": f"{every}{longest}", "rounds": rounds})
    content = "\n".join((*others, newest)) + "\n"
    Run.open(run).commit(write={file.relative_to(run).as_posix(): content.encode()})
    manifest = json.loads((run / MANIFEST).read_bytes())
    del manifest["progress"]["results"]
    (run / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return run


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser")
def test_in_a_browser_the_texts_do_nothing_on_the_watched_page(at_work: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw.html"
    raw.write_text(f"<!doctype html><title>raw</title>{TEXTS['script']}", encoding="utf-8")
    assert "<title>owned" in _in_chromium(raw.as_uri(), tmp_path), "as it is, the text does what it says"
    with WatchServer(at_work) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        shown = _in_chromium(server.address, tmp_path)
        server.shutdown()
    elements = Elements(shown)
    assert {"script", "img", "svg"}.isdisjoint(elements.tags)
    assert elements.handlers == []
    title = re.search(r"<title>(.*?)</title>", shown, re.DOTALL)
    assert title is not None
    assert title.group(1).startswith("&lt;img src=x")
    for name in ("script", "event handler", "closing tags", "template"):
        assert elements.text.count(TEXTS[name]) == 5, f"{name}: prompt, original, principle, critique and revision"
    assert elements.text.count("z" * (1 << 20)) == 3, "a megabyte in one line is there as it is"
    assert "unicode-bidi: isolate" in shown, "a text that turns the direction of writing turns no other's"
    assert shown.rstrip().endswith("</body></html>"), "no text closed an element early"


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser")
@pytest.mark.parametrize("name", ["chat", "compare", "study"])
def test_in_a_browser_the_texts_do_nothing_on_the_pages_of_a_chat_a_comparison_and_a_study(
    name: str, tmp_path: Path
) -> None:
    html = _study("\n".join(TEXTS.values()), tmp_path) if name == "study" else _small_pages()[name]
    (tmp_path / "page.html").write_text(html, encoding="utf-8", errors="strict")
    shown = _in_chromium((tmp_path / "page.html").as_uri(), tmp_path)
    elements = Elements(shown)
    assert {"script", "img"}.isdisjoint(elements.tags)
    assert elements.tags.count("svg") == (name == "study"), "the figure of a study, and none of the texts'"
    assert elements.handlers == []
    assert "<title>owned" not in shown
    assert "<title>1<" not in shown
    assert TEXTS["script"] in elements.text
    if name != "compare":
        assert elements.text.count("z" * (1 << 20)) == 1, "a megabyte in one line is there as it is"
    assert shown.rstrip().endswith("</body></html>"), "no text closed an element early"


def test_markdown_has_the_texts_in_fences_alone_and_no_control(stored: StoredRun) -> None:
    text = page.markdown(stored, [])
    assert not CONTROLS.search(text)
    blocks = MarkdownIt("commonmark").enable("table").parse(text)
    inline = [child for block in blocks for child in block.children or ()]
    assert {block.type for block in blocks}.isdisjoint({"html_block"})
    assert {one.type for one in inline}.isdisjoint({"html_inline", "image"})
    targets = [str(one.attrs.get("href")) for one in inline if one.type == "link_open"]
    assert not [target for target in targets if "evil" in target or target.startswith("javascript")]
    headings = [after.content for block, after in pairwise(blocks) if block.type == "heading_open"]
    assert "owned" not in headings
    fenced = "".join(block.content for block in blocks if block.type == "fence")
    assert TEXTS["script"] in fenced
    assert without_controls(TEXTS["ANSI and OSC"]) in fenced


def test_a_model_card_escapes_what_files_say(stored: StoredRun) -> None:
    base = 'evil/"\nlicense: mit\nmodel: x'
    facts = CardFacts(ARMS["cai"], 0, "adapter", base, "mit\nbase_model: y", (), {}, stored.settings, 0)
    card = model_card(stored.results.model_copy(update={"model_organism": False}), facts)
    assert not CONTROLS.search(card)
    _, fields, body = card.split("---\n", 2)
    assert yaml.safe_load(fields) == {
        "license": "mit\nbase_model: y",
        "base_model": base,
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["constitutional-ai", "dpo", "cai-base"],
    }
    blocks = MarkdownIt("commonmark").enable("table").parse(body)
    inline = [child for block in blocks for child in block.children or ()]
    assert not {"html_block"} & {block.type for block in blocks}
    assert not {"html_inline", "image", "link_open"} & {one.type for one in inline}


@pytest.mark.parametrize("name", TEXTS)
def test_a_record_and_a_server_s_answer_give_every_text_back_as_it_was(name: str) -> None:
    text = TEXTS[name]
    about = {"id": "a", "kind": "benign", "family": None, "tokens": 1, "truncated": False, "verdict": None}
    line = json.dumps(about | {"unscored": "no judge", "prompt": text, "response": text})
    answer = Answer.model_validate_json(line)
    assert json.loads(answer.model_dump_json())["response"] == answer.response == text
    body = bytes(JSONResponse({"text": text}).body)
    assert json.loads(body) == {"text": text}


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt"])
def test_half_a_character_in_a_file_is_refused_with_its_line(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    lone = b'{"text": "\\ud800"}\n' if name.endswith("jsonl") else b"text\n\xed\xa0\x80\n"
    file.write_bytes(lone)
    with pytest.raises(UserError, match=rf"{re.escape(str(file))}:\d"):
        load_prompts(file)
    with pytest.raises(ValueError, match="Invalid JSON: unexpected end of hex escape"):
        Answer.model_validate_json('{"id": "\\ud800"}')


@pytest.fixture(scope="module")
def to_track(stored: StoredRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with its pages, and with an answer that is a megabyte in one line."""
    run = tmp_path_factory.mktemp("track") / "run"
    shutil.copytree(stored.directory, run)
    (run / paths.REPORT_HTML).write_text("the page", encoding="utf-8")
    (run / paths.REPORT_MARKDOWN).write_text(page.markdown(stored, []), encoding="utf-8")
    file = next(run.glob(paths.answers(0, "cai", "*")))
    first, *others = file.read_text(encoding="utf-8").rstrip("\n").split("\n")
    longest = json.dumps(json.loads(first) | {"response": "z" * (1 << 20)})
    content = "\n".join((longest, *others)) + "\n"
    Run.open(run).commit(write={file.relative_to(run).as_posix(): content.encode()})
    return run


def track(run: Path, tracker: str) -> list[str]:
    """Send a run to a tracker; the responses of the model that the run stored, in order."""
    sender = Sender(run, tracker)
    try:
        sender.send(files=True)
    finally:
        sender.close()
    files = sorted(run.glob(paths.answers(0, "*", "*")))
    return [json.loads(line)["response"] for file in files for line in file.read_text("utf-8").split("\n") if line]


def test_tensorboard_shows_the_texts_of_a_report_as_text(to_track: Path) -> None:
    """As its text tab does: Markdown, made safe."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugin_util import markdown_to_safe_html

    begin(to_track, ["tensorboard"])
    assert track(to_track, "tensorboard")
    events = EventAccumulator(str(to_track / TRACKERS / "tensorboard/seed-0"), size_guidance={"tensors": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["tensors"] if "text_summary" in tag]
    assert len(tags) == 2, "the settings and the report"
    for tag in tags:
        text = events.Tensors(tag)[0].tensor_proto.string_val[0].decode()
        assert not CONTROLS.search(text)
        elements = Elements(markdown_to_safe_html(text))
        assert not {"script", "img", "svg", "style"} & set(elements.tags)
        assert elements.handlers == []


def test_weights_and_biases_holds_every_text_as_it_was(to_track: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    begin(to_track, ["wandb"])
    responses = track(to_track, "wandb")
    assert any(len(text) == 1 << 20 for text in responses)
    assert all(any(text in one for one in responses) for name, text in TEXTS.items() if name != "a long line")
    (table,) = to_track.rglob("*.table.json")
    content = json.loads(table.read_bytes())
    assert [row[content["columns"].index("response")] for row in content["data"]] == responses


def test_trackio_holds_every_text_as_it_was(to_track: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trackio import sqlite_storage

    monkeypatch.setenv("TRACKIO_PROJECT", f"test-{tmp_path.name}")
    monkeypatch.setattr(sqlite_storage, "TRACKIO_DIR", tmp_path)
    begin(to_track, ["trackio"])
    responses = track(to_track, "trackio")
    storage, project = sqlite_storage.SQLiteStorage, os.environ["TRACKIO_PROJECT"]
    (run,) = storage.get_runs(project)
    (table,) = [line["answers"]["_value"] for line in storage.get_logs(project, run) if "answers" in line]
    assert [row["response"] for row in table] == responses
