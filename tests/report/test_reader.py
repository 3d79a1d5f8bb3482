"""The reader on a run's page: all answers and chains, as text, under a policy that allows only its script."""

import base64
import gzip
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from cai_base.inputs.kinds import BENIGN, DIRECT, HARMFUL
from cai_base.records import Verdict
from cai_base.report import page, reader
from cai_base.report.load import StoredRun, load
from cai_base.store import Run

MakeRun = Callable[..., Path]
HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\u202e\x1b[31m\u2028"
)


@pytest.fixture(scope="module")
def stored(make_run: MakeRun) -> StoredRun:
    """A run in whose texts the first words of each answer and each critique are hostile."""
    directory = make_run(seeds=2)
    run = Run.watch(directory)
    for file in [*directory.glob("seed-*/evaluation/*/*.jsonl"), *directory.glob("seed-*/revision.jsonl")]:
        lines = []
        for line in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
            if "response" in line:
                line["response"] = f"{HOSTILE} {line['response']}"
            for one in line.get("rounds", ()):
                one["critique"] = f"{HOSTILE} {one['critique']}"
            lines.append(json.dumps(line))
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        run.accept(file.relative_to(directory).as_posix())
    run.commit()
    return load(directory)


@pytest.fixture(scope="module")
def html(stored: StoredRun) -> str:
    return page.html(stored, [])


def reader_data(html: str) -> str:
    element = re.search(r'<script id="reader-data" type="application/json">([^<]*)</script>', html)
    assert element is not None
    return element.group(1)


def data_of(html: str) -> dict[str, object]:
    content: dict[str, object] = json.loads(reader_data(html))
    return content


def test_every_answer_and_every_chain_is_in_the_reader(stored: StoredRun, html: str) -> None:
    items = data_of(html)["items"]
    assert isinstance(items, list)
    answers = [item for item in items if item["what"] == "answers"]
    chains = [item for item in items if item["what"] == "chains"]
    assert len(chains) == sum(1 for _ in stored.chains())
    shown = {(item["seed"], item["id"], arm, one["text"]) for item in answers for arm, one in item["answers"].items()}
    assert shown == {
        (seed, one.id, arm, one.response)
        for seed in stored.seeds
        for arm in stored.results.arms
        for one in stored.answers(arm, seed)
    }


def test_the_policy_allows_the_reader_and_no_other_script(html: str) -> None:
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy.group(1).replace("&#39;", "'")
    assert "unsafe-inline" not in policy.group(1).partition("script-src")[2]


def test_items_that_do_not_fit_are_counted_on_the_page(stored: StoredRun, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = reader.read(stored)
    half = reader.read(stored, largest=len(whole.data) // 2)
    assert whole.left_out == 0
    assert 0 < half.left_out < len(json.loads(whole.data)["items"])
    monkeypatch.setattr(reader, "read", partial(reader.read, largest=len(whole.data) // 2))
    assert f"{half.left_out} items did not fit into the page" in page.html(stored, [])


@pytest.mark.parametrize(
    ("kind", "complied", "ended"),
    [
        (DIRECT, (True, False, False), 1),
        (DIRECT, (True, True, False), 2),
        (DIRECT, (True, False, True), None),
        (DIRECT, (True, None, False), None),
        (DIRECT, (True, True, None), None),
        (DIRECT, (False, True, False), None),
        (BENIGN, (True, False, False), None),
    ],
)
def test_harm_ended_in_the_round_after_which_no_response_to_a_harmful_prompt_complied(
    stored: StoredRun,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    complied: tuple[bool | None, ...],
    ended: int | None,
) -> None:
    seed, chain = next((seed, one) for seed, one in stored.chains() if one.kind in HARMFUL)
    verdicts = tuple(None if one is None else Verdict.model_validate({"complied": one}) for one in complied)
    changed = chain.model_copy(update={"kind": kind, "verdicts": verdicts, "unscored": (None,) * 3})
    monkeypatch.setattr(StoredRun, "chains", lambda _: iter([(seed, changed)]))
    (item,) = [one for one in json.loads(reader.read(stored).data)["items"] if one["what"] == "chains"]
    assert item["ended"] == ended


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser")
@pytest.mark.parametrize(("button", "start"), [("after", "items.length - 2"), ("before", "1")])
def test_in_a_browser_a_button_keeps_the_focus_at_the_last_item(
    html: str, tmp_path: Path, button: str, start: str
) -> None:
    press = f"""<script>
      const {{ items }} = JSON.parse(document.getElementById("reader-data").textContent);
      location.hash = `#item-${{{start}}}`;
      addEventListener("hashchange", () => {{
        const button = document.getElementById("reader-{button}");
        button.focus();
        button.click();
        const before = document.getElementById("reader-count").textContent;
        button.click();
        const after = document.getElementById("reader-count").textContent;
        document.title = [document.activeElement.id, button.ariaDisabled, before === after, after].join(" ");
      }});
    </script></body>"""
    number = len(data_of(html)["items"])  # type: ignore[arg-type]
    text = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", html).replace("</body>", press)
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --virtual-time-budget=8000".split()
    dom = subprocess.run(
        ["chromium", *flags, f"--user-data-dir={tmp_path}", "--dump-dom", f"file://{tmp_path}/page.html"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    place = number if button == "after" else 1
    assert f"<title>reader-{button} true true {place} of {number}</title>" in dom


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser")
def test_in_a_browser_an_item_is_shown_by_its_link_and_hostile_text_stays_text(html: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(html, encoding="utf-8")
    items = data_of(html)["items"]
    assert isinstance(items, list)
    number = next(number for number, item in enumerate(items) if item["what"] == "chains")
    flags = "--headless --no-sandbox --disable-gpu --virtual-time-budget=8000".split()
    shown = subprocess.run(
        ["chromium", *flags, f"--user-data-dir={tmp_path}", "--dump-dom", f"file://{tmp_path}/page.html#item-{number}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    item = shown.partition('id="reader-item"')[2].partition("</article>")[0]
    assert items[number]["prompt"] in item
    assert "&lt;/script&gt;" in item
    assert "\u27e8U+202E\u27e9\u27e8U+001B\u27e9" in item
    assert "<ins>" in item
    assert "<title>owned" not in shown
    assert f"{number + 1} of {len(items)}" in shown


def test_many_texts_are_in_the_page_compressed_and_the_same_each_time(
    stored: StoredRun, html: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "PACKED", 1000)
    packed, again = reader.read(stored), reader.read(stored)
    assert packed == again
    assert packed.packed
    assert json.loads(gzip.decompress(base64.b64decode(packed.data))) == data_of(html)
    assert len(packed.data) < len(reader_data(html)) / 2


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser")
def test_in_a_browser_compressed_texts_are_read_too(
    stored: StoredRun, html: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "PACKED", 1000)
    text = page.html(stored, [])
    assert 'id="reader-data" type="application/gzip"' in text
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    items = data_of(html)["items"]
    assert isinstance(items, list)
    flags = "--headless --no-sandbox --disable-gpu --virtual-time-budget=8000".split()
    shown = subprocess.run(
        ["chromium", *flags, f"--user-data-dir={tmp_path}", "--dump-dom", f"file://{tmp_path}/page.html#item-1"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"2 of {len(items)}" in shown
    assert items[1]["id"] in shown.partition('id="reader-item"')[2].partition("</article>")[0]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser")
def test_in_a_browser_a_megabyte_in_one_line_is_shown_in_the_reader(html: str, tmp_path: Path) -> None:
    data, longest = data_of(html), "z" * (1 << 20)
    items = data["items"]
    assert isinstance(items, list)
    number = next(number for number, item in enumerate(items) if item["what"] == "chains")
    items[number]["rounds"][-1]["critique"] = longest
    start, end = '<script id="reader-data" type="application/json">', "</script>"
    before, _, rest = html.partition(start)
    content = json.dumps(data).replace("<", "\\u003c")
    (tmp_path / "page.html").write_text(f"{before}{start}{content}{end}{rest.partition(end)[2]}", encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --virtual-time-budget=8000".split()
    shown = subprocess.run(
        ["chromium", *flags, f"--user-data-dir={tmp_path}", "--dump-dom", f"file://{tmp_path}/page.html#item-{number}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    item = shown.partition('id="reader-item"')[2].partition("</article>")[0]
    assert item.count(longest) == 1
    assert f"{number + 1} of {len(items)}" in shown


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser")
@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        (
            "Be sure to lift it.",
            "I must say no to that.",
            "<del>Be sure to lift it.</del><ins>I must say no to that.</ins>",
        ),
        (
            "I dry the hall here.",
            "I paint the hall here.",
            "<span>I </span><del>dry </del><ins>paint </ins><span>the hall",
        ),
    ],
)
def test_in_a_browser_words_shared_by_chance_do_not_break_up_a_change(
    html: str, tmp_path: Path, before: str, after: str, shown: str
) -> None:
    data = data_of(html)
    items = data["items"]
    assert isinstance(items, list)
    chain = next(item for item in items if item["what"] == "chains")
    chain["original"]["text"], chain["rounds"][0]["text"], chain["rounds"][0]["critique"] = before, after, "none"
    changed = json.dumps(data | {"items": [chain]}).replace("<", "\\u003c")
    text = re.sub('(id="reader-data"[^>]*>)[^<]*', lambda match: match[1] + changed, html)
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --virtual-time-budget=8000".split()
    dom = subprocess.run(
        ["chromium", *flags, f"--user-data-dir={tmp_path}", "--dump-dom", f"file://{tmp_path}/page.html"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert shown in dom


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser")
def test_in_a_browser_a_principle_s_link_shows_its_chains(html: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(html, encoding="utf-8")
    items = data_of(html)["items"]
    assert isinstance(items, list)
    link, name = re.findall(r'<a href="(#principle-[^"]+)">([^<]+)</a>', html)[0]
    chains = [item for item in items if name in [one["principle"] for one in item.get("rounds", ())]]
    flags = "--headless --no-sandbox --disable-gpu --virtual-time-budget=8000".split()
    shown = subprocess.run(
        ["chromium", *flags, f"--user-data-dir={tmp_path}", "--dump-dom", f"file://{tmp_path}/page.html{link}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f'role="status">1 of {len(chains)}</span>' in shown
    assert chains[0]["prompt"] in shown.partition('id="reader-item"')[2].partition("</article>")[0]
