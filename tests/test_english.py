"""The source keeps to the rules of CONTRIBUTING.md on names and sizes that a program can check."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from cai_base.arms import ARMS

SOURCE = Path(__file__).parents[1] / "src" / "cai_base"
PARTICIPLES = set("found asked kept said given shown loaded wanted ended drawn made".split())
STORED_PARTICIPLES = {
    ("records/figures.py", "shown"): "a key of results.json",
    ("records/results.py", "drawn"): "a key of results.json",
    ("report/reader.py", "ended"): "a key of the reader's items",
}
"""Names that are keys of files. An entry that no longer applies fails."""
LONGEST_FILE = 450
"""Lines. A file of more than about 400 has two subjects."""

NO_ARMS = {
    ("embedded.py", "base"): "a field of the sibling's card",
    ("integrations/export/origin.py", "sft"): "a section of the settings",
    ("integrations/export/origin.py", "shuffled"): "a rule for pairs",
    ("method/arm_phases.py", "sft"): "a section of the settings",
    ("method/pairs.py", "feedback"): "a rule for pairs",
    ("method/pairs.py", "shuffled"): "a rule for pairs",
    ("method/pairs.py", "unrevised"): "a rule for pairs",
    ("run/preflight/feedback.py", "feedback"): "a check of preflight",
    ("run/results/run.py", "feedback"): "a field of the results",
    ("run/preflight/models.py", "base"): "a check of preflight",
    ("run/preflight/models.py", "instruct"): "a check of preflight",
    ("run/evaluation/targets.py", "base"): "a flag",
    ("settings/command_line.py", "instruct"): "a flag",
    ("settings/schema.py", "base"): "a check of preflight",
    ("settings/schema.py", "feedback"): "a check of preflight",
    ("settings/schema.py", "instruct"): "a check of preflight",
}
"""Strings that are spelt like an arm's name and are something else, by file. An entry that no longer applies fails."""

FLAG = re.compile(r"(?<![\w-])--[a-z]")


def sources() -> dict[str, str]:
    """Every source file by its path in the package."""
    return {path.relative_to(SOURCE).as_posix(): path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py")}


def names(tree: ast.AST) -> Iterator[str]:
    """The names of all functions, classes, parameters, variables and fields that a file defines."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.arg(arg=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case ast.alias(asname=str(name)) | ast.ExceptHandler(name=str(name)):
                yield name
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                yield name


def bare(name: str) -> str:
    """A name as it is compared with `PARTICIPLES`: a private name and a constant are no exceptions."""
    return name.strip("_").lower()


def strings(tree: ast.AST) -> Iterator[str]:
    """All strings of a file, docstrings and the constant parts of f-strings included."""
    return (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))


def test_no_name_is_a_bare_participle() -> None:
    participles = {
        (file, bare(name))
        for file, text in sources().items()
        for name in names(ast.parse(text))
        if bare(name) in PARTICIPLES
    }
    assert participles - STORED_PARTICIPLES.keys() == set(), "say what the value is: figures, answers, match, config"
    assert STORED_PARTICIPLES.keys() - participles == set(), "these are gone: remove them from STORED_PARTICIPLES"
    tests = {path.name: path.read_text(encoding="utf-8") for path in Path(__file__).parent.rglob("*.py")}
    assert [file for file, text in tests.items() if "found" in names(ast.parse(text))] == []


def test_the_check_of_names_sees_every_kind_of_name() -> None:
    text = """
import json as found
class kept: ...
def asked(said): ...
for self.found in (): ...
with open("x") as _kept: ...
try: ...
except OSError as asked: ...
match 1:
    case said: ...
kinds = [0 for found in ()]
kept: int = 1
KEPT = _Shown = 1
"""
    assert sum(bare(name) in PARTICIPLES for name in names(ast.parse(text))) == 12


def test_no_engine_knows_a_flag() -> None:
    flags = {
        f"{file}: {string}"
        for file, text in sources().items()
        if file.startswith("engines/")
        for string in strings(ast.parse(text))
        if FLAG.search(string)
    }
    assert flags == set(), "engines raise plain errors; models.py and the commands add the flag"


def test_no_arm_is_named_outside_the_table_of_arms() -> None:
    """A literal such as `"sft"` or `f"{arm} - sft"`: constants and roles of `arms` are used in its place."""
    arm_names = "|".join(map(re.escape, ARMS))
    literal = re.compile(rf"({arm_names})(?:/| - .*)?|.* - (?:{arm_names})")
    literals = {
        (file, string)
        for file, text in sources().items()
        if file != "arms.py" and not file.startswith(("village/", "engines/", "organism/"))  # these know no arm
        for string in strings(ast.parse(text))
        if literal.fullmatch(string)
    }
    assert literals - NO_ARMS.keys() == set(), "derive it from cai_base.arms"
    assert NO_ARMS.keys() - literals == set(), "these are gone: remove them from NO_ARMS"


def test_only_one_place_knows_which_world_the_embedded_model_lives_in() -> None:
    elsewhere = [file for file in sources() if not file.startswith(("village/", "organism/", "embedded.py"))]
    assert [file for file in elsewhere if "village" in sources()[file].casefold()] == []


def test_no_file_is_too_long() -> None:
    lengths = {file: len(text.splitlines()) for file, text in sources().items()}
    assert {file: length for file, length in lengths.items() if length > LONGEST_FILE} == {}
