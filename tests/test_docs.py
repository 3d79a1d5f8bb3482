"""The pages say what is there: links, paths, commands and flags."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from functools import cache
from io import StringIO
from itertools import pairwise
from pathlib import Path

import pytest

from cai_base.cli import COMMANDS, main
from cai_base.cli.parser import Parser
from cai_base.settings.command_line import load_settings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
PACKAGE = ROOT / "src" / "cai_base"


@cache
def _help(*command: str) -> str:
    """What `cai-base COMMAND --help` prints."""
    output = StringIO()
    with redirect_stdout(output), suppress(SystemExit):
        main([*command, "--help"])
    return output.getvalue()


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _anchor(heading: str) -> str:
    """A heading's anchor as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def _commands(page: Path) -> list[str]:
    """Every command line of the program in a block or a code span, continued lines joined."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    spans = re.findall(r"(?<!`)`(cai-base [^`]*)`(?!`)", " ".join(text.split()))
    lines = [line.split("  #")[0] for line in (*text.splitlines(), *spans)]
    return [line for line in lines if re.match(r"(\.venv/bin/)?cai-base (?!:)", line)]


@cache
def _tests() -> frozenset[str]:
    """Every test by its name, and every file of tests by its own."""
    files = list((ROOT / "tests").rglob("test_*.py"))
    functions = (name for file in files for name in re.findall(r"^def (test_\w+)", file.read_text("utf-8"), re.M))
    return frozenset((*functions, *(file.stem for file in files)))


@pytest.mark.parametrize("page", [ROOT / "SECURITY.md", ROOT / "docs/faults.md"], ids=_name)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    named = set(re.findall(r"\btest_\w+", page.read_text(encoding="utf-8")))
    assert named - _tests() == set()


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.M)
            assert anchor in [_anchor(heading) for heading in headings], target


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_file_of_the_source_that_a_page_names_is_there(page: Path) -> None:
    tops = {path.name for path in (*ROOT.iterdir(), *PACKAGE.iterdir())}
    for name in re.findall(r"`([\w-]+/[\w/.-]+\.(?:py|toml|jsonl|md))`", page.read_text(encoding="utf-8")):
        if name.split("/")[0] in tops and f"`{name}`, new:" not in page.read_text(encoding="utf-8"):
            assert (ROOT / name).exists() or (PACKAGE / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_command_and_flag_that_a_page_names_exists(page: Path) -> None:
    commands = set(re.findall(r"^ +([a-z]+) ", _help(), re.M))
    for line in _commands(page):
        command, *words = line.split("cai-base ", 1)[1].split()
        if command == "COMMAND" or command.startswith(("-", "[")):
            continue
        assert command in commands, line
        # `evaluate`, `preflight` and `cost` also take flags of `run`.
        known = _help(command) + _help(command, *words[:1]) + _help("run") + _help()
        for flag in re.findall(r"(?<!\S)--([a-z][a-z.-]*)", " ".join(words)):
            assert re.search(rf"--{re.escape(flag)}(?![\w.-])", known), f"--{flag} in {line}"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_target_script_and_benchmark_that_a_page_runs_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    code = "\n".join((*re.findall(r"^```[^\n]*\n(.*?)^```", text, re.M | re.S), *re.findall(r"`([^`\n]+)`", text)))
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert set(re.findall(r"^(?:\w+=\S+ )*make ([\w-]+)", code, re.M)) - targets == set()
    named = re.findall(r"(?<![\w/.-])((?:scripts|benchmarks|examples)/[\w.-]*[\w-])(?=[\s`;,)]|$)", code)
    assert [name for name in named if not (ROOT / name).exists()] == []


PLACEHOLDERS = {"URL": "http://localhost:8000/v1"}
"""Words of the pages that stand for something of a certain form."""


class Parsed(Exception):
    """A command's arguments were accepted; carries those for the settings of `run`."""

    def __init__(self, handed_on: list[str]) -> None:
        super().__init__()
        self.handed_on = handed_on


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, list[str]], None]:
    """Has a command's own parser read its arguments, and nothing more; what they name is made where it must exist."""
    known, whole = Parser.parse_known_args, Parser.parse_args
    within: list[object] = []

    def parse_known_args(self: Parser, *args: object, **more: object) -> object:
        namespace, rest = known(self, *args, **more)  # type: ignore[call-overload]
        if within:
            return namespace, rest
        raise Parsed(rest)

    def parse_args(self: Parser, *args: object, **more: object) -> object:
        within.append(self)
        whole(self, *args, **more)  # type: ignore[call-overload]
        raise Parsed([])

    monkeypatch.setattr(Parser, "parse_known_args", parse_known_args)
    monkeypatch.setattr(Parser, "parse_args", parse_args)
    monkeypatch.setattr("cai_base.cli.parser.refuse_no_run", lambda _: None)  # RUN is a placeholder
    monkeypatch.chdir(tmp_path)

    def parse(command: str, words: list[str]) -> None:
        for before, word in pairwise(["", *words]):
            if before == "--config":
                Path(word).write_text("seeds = 1")
            elif word.endswith(".gguf"):
                Path(word).touch()
            elif word.startswith("./"):
                Path(word).mkdir(exist_ok=True)
        within.clear()
        if command not in ("run", "preflight", "cost"):
            with pytest.raises(Parsed) as parsed:
                COMMANDS[command].run(words)
            words = parsed.value.handed_on
        load_settings(words)

    return parse


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_command_in_a_block_is_taken_by_its_parser(page: Path, parse: Callable[[str, list[str]], None]) -> None:
    blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    for line in lines:
        if line.startswith("cai-base ") and "[" not in line and "$flags" not in line:
            command, *words = shlex.split(line, comments=True)[1:]
            parse(command, [PLACEHOLDERS.get(word, word) for word in words])


def test_the_pictures_of_the_findings_are_drawn_from_the_tables_as_they_stand(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "scripts" / "findings-figures", tmp_path], check=True)
    drawn = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert len(drawn) > 4
    page = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    for name, data in drawn.items():
        assert data == (ROOT / "docs" / "images" / name).read_bytes(), f"{name}: run scripts/findings-figures"
        assert f"(images/{name})" in page


def test_the_readme_is_read_in_minutes() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
