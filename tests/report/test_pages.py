"""Both pages of the report, as a reader sees them."""

import json
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cai_base.errors import UserError
from cai_base.inputs.kinds import HARMFUL
from cai_base.records import VERDICT_PARTS, Verdict
from cai_base.report import page, write
from cai_base.report.figures import Group, draw
from cai_base.report.headline import headline
from cai_base.report.labels import marks
from cai_base.report.load import StoredRun, load
from cai_base.settings.command_line import load_settings
from cai_base.store import to_json

from .conftest import HOSTILE, MakeRun

VOID = {"meta", "use", "link", "br", "hr", "img", "input"}


class Reader(HTMLParser):
    """Collects elements and visible text, and notices tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text.append(data)


@pytest.fixture(scope="module")
def stored(run: Path) -> StoredRun:
    return load(run)


@pytest.fixture(scope="module")
def groups(stored: StoredRun) -> list[Group]:
    return draw(stored)


@pytest.fixture(scope="module")
def html(stored: StoredRun) -> str:
    return page.html(stored, [])


@pytest.fixture(scope="module")
def markdown(stored: StoredRun) -> str:
    return page.markdown(stored, [])


def test_a_run_without_results_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"results\.json: does not exist; finish the run first: cai-base resume"):
        write(tmp_path)


def test_results_of_another_schema_are_refused(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_bytes(to_json({"schema": 99}))
    with pytest.raises(UserError, match="schema is 99 and this version reads 1"):
        write(tmp_path)


def test_results_that_are_not_json_are_refused_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{\n"schema": 1,,}')
    with pytest.raises(UserError, match=r"results\.json:2: not valid JSON"):
        write(tmp_path)


def test_the_whole_report_is_the_same_bytes_twice_and_loads_nothing(run: Path) -> None:
    pages = write(run)
    assert [path.name for path in pages] == ["report.html", "report.md"]
    first = _files(run)
    write(run)
    assert _files(run) == first
    assert {"figures/arms.pdf", "figures/arms-attack-success-rate.svg", "figures/training-dpo-margin.svg"} <= set(first)
    text = pages[0].read_text(encoding="utf-8")
    reader = Reader(text)
    assert [attributes.get("type") for tag, attributes in reader.elements if tag == "script"] == [
        "application/json",
        "application/json",
        None,
    ]
    for _, attributes in reader.elements:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert not re.search(r"@import|url\((?!#)", text)
    identifiers = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    linked = re.findall(r"\]\((figures/[^)]+)\)", pages[1].read_text(encoding="utf-8"))
    assert linked
    assert all((run / name).exists() for name in linked)


def _files(run: Path) -> dict[str, bytes]:
    paths = [*run.glob("report.*"), *run.glob("figures/*")]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in paths}


PROBE = """<script>addEventListener("load", () => {
  document.querySelectorAll("details").forEach(one => one.open = true);
  const page = document.documentElement, plot = document.getElementById("plot-training-sft-loss");
  plot.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight"}));
  const reading = plot.nextElementSibling.textContent;
  parent.postMessage(`${page.scrollWidth - page.clientWidth} sideways; ${reading}`, "*");
})</script></body>"""
FRAME = """<iframe src="page.html" width="400" height="800"></iframe><p id="found"></p>
<script>onmessage = event => { document.getElementById("found").textContent = event.data }</script>"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser")
def test_on_a_phone_only_tables_scroll_sideways_and_keys_read_values_off_a_figure(
    stored: StoredRun, groups: list[Group], tmp_path: Path
) -> None:
    long = {"model": "Llama" * 30, "warnings": (f"/{'folder' * 40}: too long",)}
    results = stored.results.model_copy(update=long)
    text = page.html(replace(stored, results=results), groups)
    text = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", text).replace("</body>", PROBE)
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    (tmp_path / "frame.html").write_text(FRAME, encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --allow-file-access-from-files --virtual-time-budget=8000".split()
    shown = subprocess.run(
        ["chromium", *flags, f"--user-data-dir={tmp_path}", "--dump-dom", f"file://{tmp_path}/frame.html"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    # The first losses of the stored steps are 3 for seed 0 and 3.1 for seed 1.
    assert ">0 sideways; step 0 \u00b7 seed 0: 3, seed 1: 3.1</p>" in shown


def test_numbers_are_those_of_the_results(stored: StoredRun, html: str, markdown: str) -> None:
    results = json.loads((stored.directory / "results.json").read_bytes())
    attack = results["arms"]["sft"]["attack_success_rate"]
    compared = results["comparisons"]["cai - sft"]["attack_success_rate"]
    low, high = attack["ci95"]
    expected = (
        f"{100 * attack['mean']:.1f}",
        f"[{100 * low:.1f}, {100 * high:.1f}]",
        f"{100 * compared['difference']:+.1f}",
        f"{results['arms']['sft']['helpfulness']['mean']:.2f}",
        f"{100 * results['revision']['harmful_by_round'][-1]:.1f}",
    )
    for text in (html, markdown):
        for number in expected:
            assert number.replace("-", "−") in text.replace("\\", "")


def test_no_line_of_the_page_begins_with_the_sign_of_a_rate(stored: StoredRun, html: str) -> None:
    (shown,) = re.findall(r'<p class="headline">(.*?)</p>', html)
    assert "\u00a0%" in shown
    assert " %" not in shown
    assert '<span class="whole">SFT-only</span>' in shown, "no line ends at its hyphen"
    assert re.sub("<[^>]*>", "", shown).replace("\u00a0", " ") == headline(stored.results)


def test_filtered_reasons_are_counted(stored: StoredRun, html: str, markdown: str) -> None:
    for reason, number in stored.results.revision.filtered.items():
        assert f"{number} {reason}" in html
        assert f"{number} {reason}" in markdown


def test_model_text_is_shown_and_never_markup(html: str) -> None:
    reader = Reader(html)
    assert [tag for tag, _ in reader.elements].count(
        "script"
    ) == 3  # what the figures hold, the reader's texts, and the reader
    assert "img" not in {tag for tag, _ in reader.elements}
    assert HOSTILE in reader.text


def test_markdown_keeps_model_text_inside_its_fence(markdown: str) -> None:
    fence, outside, inside = "", [], []
    for line in markdown.splitlines():
        opened = re.fullmatch(r"(`{3,})text", line)
        if not fence and opened:
            fence = opened[1]
        elif fence and line == fence:
            fence = ""
        else:
            (inside if fence else outside).append(line)
    assert fence == ""
    assert "# Not a heading" in inside
    assert not [line for line in outside if "script" in line or "Not a heading" in line or "evil.example" in line]


@pytest.mark.parametrize(
    "text", ["a | b", "<b>bold</b>", "[x](http://e.example)", "`code`", "*a* _b_", "# no\n# heading"]
)
def test_escaped_markdown_has_no_bare_markup(text: str) -> None:
    assert not re.search(r"(?<!\\)[|<>`*_\[\]#]|\n", page.escaped(text))


def test_warnings_come_before_the_table(make_run: MakeRun) -> None:
    stored = load(make_run(warnings=("lengths were clipped <i>twice</i>",)))
    html, markdown = page.html(stored, []), page.markdown(stored, [])
    body = html[html.index("<body>") :]
    assert body.index('class="headline"') < body.index("lengths were clipped &lt;i&gt;twice") < body.index("<table>")
    assert markdown.index("lengths were clipped") < markdown.index("On jailbreak prompts") < markdown.index("| --- |")


def test_the_original_protocol_says_that_prompts_overlap(make_run: MakeRun) -> None:
    html = page.html(load(make_run(seeds=1, protocol="original")), [])
    assert "On jailbreak prompts that were also trained on" in html
    assert "the method&#39;s prompts are also evaluation prompts" in html


def test_one_seed_has_intervals_over_prompts_alone_and_says_so(make_run: MakeRun) -> None:
    stored = load(make_run(seeds=1))
    for text in (page.html(stored, []).replace("\u00a0", " "), page.markdown(stored, [])):
        assert "One seed. Brackets: 95 % Clopper-Pearson intervals over prompts" in text
        assert "95 % interval over prompts" in text
        assert "This is one seed; others may differ." in text


def test_without_a_judge_everything_is_unscored(make_run: MakeRun) -> None:
    stored = load(make_run(judged=False, warnings=("preflight, judge warned: there is no judge",)))
    groups = draw(stored)
    html = page.html(stored, groups)
    assert "There was no judge: every answer is unscored" in html
    assert "Not known without a judge: Attack success rate, Over-refusal rate" in html
    assert "preflight, judge" not in html, "the headline says it"
    table = html[html.index('id="table"') : html.index('id="families"')]
    assert "Attack success rate (%)" not in table
    assert "Response length (tokens)" in table
    assert "harmful before (%)" not in html
    assert "0 of 48" in html
    assert "None" not in " ".join(Reader(html).text)
    assert [len(group.pictures) for group in groups] == [0, 0, 2, 5, 0, 0]
    assert "Not drawn, because the rate is 0 for every arm: Broken language." in html
    assert "Nothing to draw: no chain has a verdict." in html


def test_a_failed_seed_is_named(make_run: MakeRun) -> None:
    stored = load(make_run(seeds=3, lost={1: "the loss is not finite"}))
    html = page.html(stored, [])
    assert "seed 1 failed in dpo: the loss is not finite" in html
    assert "A difference is taken over the seeds that both arms have." in html


def test_no_arm_but_sft(make_run: MakeRun) -> None:
    html = page.html(load(make_run(seeds=1, arms="sft")), [])
    assert "No other arm was trained" in html
    assert "Full CAI − SFT-only" not in html


def test_each_arm_s_loss_is_said(html: str, markdown: str) -> None:
    assert "SFT-only: nll; Full CAI: sigmoid (DPO; beta 0.1, nll_weight 1)" in html
    assert "SFT-only: nll; Full CAI: sigmoid (DPO; beta 0.1, nll\\_weight 1)" in markdown


def test_the_model_organism_is_called_one(html: str, markdown: str) -> None:
    assert "no evidence about large models" in html
    assert "no evidence about large models" in markdown


def test_the_command_gives_the_same_settings(stored: StoredRun) -> None:
    settings = load_settings(shlex.split(page.command(stored.settings))[2:]).settings
    stored_settings = json.loads((stored.directory / "config.json").read_bytes())
    assert settings.model_dump(mode="json", by_alias=True) == stored_settings


def test_marks_call_the_same_verdict_good_or_bad_by_kind() -> None:
    refused = Verdict(complied=False, refused=True, helpfulness=1.0, gibberish=False)
    assert marks("jailbreak", refused) == [("refused", "good")]
    assert marks("sensitive", refused) == [("refused", "bad"), ("helpfulness 1 of 5", "plain")]
    assert marks("jailbreak", None, "no judge") == [("unscored: no judge", "plain")]


def test_every_part_of_a_verdict_has_a_mark() -> None:
    values = {name: True if part.bounds is None else part.bounds[1] for name, part in VERDICT_PARTS.items()}
    for name, value in values.items():
        assert marks("benign", Verdict.model_validate({name: value})), name
    assert marks("jailbreak", Verdict(complied=True, harm=0.75)) == [("complied", "bad"), ("harm 0.75", "plain")]


def test_the_table_of_principles_counts_the_stored_chains(stored: StoredRun, html: str) -> None:
    principles = stored.results.revision.principles
    assert principles is not None
    chains = [chain for _, chain in stored.chains()]
    rounds = [(chain, n, one) for chain in chains for n, one in enumerate(chain.rounds) if one.principle in principles]
    assert sum(one.drawn for one in principles.values()) == len(rounds) == sum(len(chain.rounds) for chain in chains)
    name = next(iter(principles))
    of_one = [(chain, n) for chain, n, one in rounds if one.principle == name]
    judged = [
        (chain.verdicts[n], chain.verdicts[n + 1])
        for chain, n in of_one
        if chain.kind in HARMFUL and chain.refusal_opener is None
    ]
    after = [second.complied for first, second in judged if first is not None and second is not None]
    assert principles[name].judged == len(after) > 0
    assert principles[name].harmful_after == pytest.approx(sum(map(bool, after)) / len(after))
    assert principles[name].changed == 1  # every text of these chains is another
    row = html.partition(f'<a href="#principle-{name}">{name}</a>')[2].partition("</tr>")[0]
    assert f"<td>{len(of_one)}</td>" in row
    assert f"of {len(after)}</span>" in row


def test_both_pages_say_which_rounds_count_as_harm_before_and_after(stored: StoredRun, groups: list[Group]) -> None:
    for text in (page.html(stored, groups), page.markdown(stored, groups)):
        note = text.partition("Every round of every chain under the principle")[2].partition("These are counts")[0]
        assert "These two shares leave out rounds with an unscored response" in note
        assert "chains whose original was prefilled with the opening of a refusal" in note


def test_the_first_figure_has_its_caption_on_the_page(stored: StoredRun, groups: list[Group]) -> None:
    first = page.html(stored, groups).partition('<figure class="glance">')[2].partition("</figure>")[0]
    caption = first.partition('<figcaption class="quiet">')[2]
    assert caption.startswith("Every arm by both rates: diamonds are means over seeds")


def test_the_column_harm_found_says_what_it_is_a_share_of(stored: StoredRun, groups: list[Group]) -> None:
    revision = stored.results.revision
    assert revision.principles is not None
    unread = {name: one.model_copy(update={"flagged": None}) for name, one in revision.principles.items()}
    read = {name: one.model_copy(update={"flagged": 0.5}) for name, one in revision.principles.items()}
    for principles, present in ((unread, False), (read, True)):
        changed = revision.model_copy(update={"principles": principles})
        results = stored.results.model_copy(update={"revision": changed})
        text = page.markdown(replace(stored, results=results), groups)
        assert ("| harm found (%) |" in text.replace("\\", "")) is present
        assert ("Harm found: the share of all these rounds whose critique" in text) is present


def test_the_power_line_is_about_the_interval_that_is_shown(html: str) -> None:
    (line,) = [text for text in Reader(html).text if text.startswith("Power:")]
    assert "given the interval that is shown" in line
    assert "optimistic" not in line
