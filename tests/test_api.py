"""The public API: its types, its docstrings, and the method in one file."""

import ast
import dataclasses
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

import pytest
from pydantic import BaseModel
from torch import Tensor

import cai_base
from cai_base.settings.validation import leaves

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples/cai_in_one_file.py"
PUBLIC = {name: getattr(cai_base, name) for name in cai_base.__all__ if name != "__version__"}


@pytest.fixture(scope="module")
def page() -> ModuleType:
    """The script that writes docs/api.md: it says what of a class is public."""
    loader = SourceFileLoader("write_api", str(ROOT / "scripts/write-api"))
    script = module_from_spec(spec_from_loader(loader.name, loader))  # type: ignore[arg-type]
    loader.exec_module(script)
    return script


def types_of(hint: Any) -> Iterator[type]:
    """Every class in a type, such as `Prompt` in `Mapping[str, list[Prompt] | None]`."""
    arguments = hint if isinstance(hint, list) else get_args(hint)
    if isinstance(hint, type) and not arguments:
        yield hint
    for argument in arguments:
        yield from types_of(argument)


def private(hint: Any) -> set[str]:
    """The classes of this package in a type that are not public. One that is a `str` counts as that."""
    return {
        one.__qualname__
        for one in types_of(hint)
        if one.__module__.startswith("cai_base") and one not in PUBLIC.values() and not issubclass(one, str)
    }


def hints_of(value: Any) -> dict[str, Any]:
    """The types of a function's parameters and result, or of a class's fields, constructor and attributes."""
    names = PUBLIC | {"Tensor": Tensor}  # what modules import for type checkers alone
    if not inspect.isclass(value):
        return get_type_hints(value, localns=names)
    fields = get_type_hints(value, localns=names)
    if dataclasses.is_dataclass(value):
        return {field.name: fields[field.name] for field in dataclasses.fields(value)}
    if issubclass(value, BaseModel):
        return {name: fields[name] for name in value.model_fields}
    return get_type_hints(value.__init__, localns=names)


def hints_of_member(owner: type, member: str) -> dict[str, Any]:
    """The types of a method, a property or an attribute."""
    value = inspect.getattr_static(owner, member, None)
    if isinstance(value, property):
        return get_type_hints(value.fget, localns=PUBLIC)
    if inspect.isfunction(value):
        return hints_of(value)
    return {member: get_type_hints(owner, localns=PUBLIC)[member]}


@pytest.mark.parametrize("name", PUBLIC)
def test_no_type_in_what_is_public_is_private(name: str, page: ModuleType) -> None:
    value = PUBLIC[name]
    hints = {} if name in page.NOT_CONSTRUCTED else {name: hints_of(value)}
    hints |= {f"{name}.{member}": hints_of_member(value, member) for member in page.MEMBERS.get(name, ())}
    assert {f"{where}: {one}" for where, of in hints.items() for hint in of.values() for one in private(hint)} == set()


def test_the_page_shows_no_private_name_in_a_signature(page: ModuleType) -> None:
    """Such as the name of an alias, which the types themselves no longer have."""
    signatures = " ".join(re.findall(r"```python\n(.*?)```", page.page(), re.DOTALL))
    known = {*PUBLIC, *"Callable Iterable Literal Mapping Path Sequence Tensor TextIO None False".split()}
    assert set(re.findall(r"\b[A-Z]\w*", re.sub("'[^']*'", "", signatures))) <= known


def test_a_setting_is_a_plain_value_and_in_the_table(page: ModuleType) -> None:
    table = page.settings_table()
    for flag, field in leaves(cai_base.RunSettings):
        assert private(field.annotation) == set(), flag
        assert f"| `{flag.replace('-', '_')}` | " in table


def test_the_walk_of_types_sees_a_private_one_wherever_it_stands() -> None:
    assert private(dict[str, list[cai_base.Pair | None]]) == set()
    assert private(hints_of(cai_base.RunSettings)["feedback"]) == {"Feedback"}
    assert private(hints_of_member(cai_base.Engine, "meter")["meter"]) == {"Meter"}
    assert private(hints_of_member(cai_base.Engine, "findings")["return"]) == {"Findings"}
    assert private(hints_of(cai_base.Inputs)["rubrics"]) == {"Rubric"}


def test_settings_are_changed_by_their_names_in_python() -> None:
    config = cai_base.default_settings("organism", arms=("sft", "cai", "sl-cai"), dpo={"loss": "ipo", "batch_size": 2})
    assert (config.dpo.loss, config.dpo.batch_size, config.arms) == ("ipo", 2, ("sft", "cai", "sl-cai"))
    assert config.dpo.beta == 1, "the default of the loss"
    assert cai_base.default_settings("organism", arms=config.arms, dpo=config.dpo) == config, "a section as it is"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dpo": {"step": 1}}, "dpo.step: no such setting; did you mean dpo.steps?"),
        ({"dpo": {"batch_size": 0}}, "dpo.batch-size 0: must be at least 1"),
        ({"dpo": 3}, "dpo 3: is a group of settings; give those that change, such as dpo={'steps': ...}"),
        ({"arms": ("sft", "nope")}, "arms: 'nope' is not an arm to choose"),
    ],
)
def test_a_wrong_setting_from_python_is_one_sentence(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(cai_base.UserError, match="^" + re.escape(message)):
        cai_base.default_settings("organism", **changes)


def test_every_public_name_is_there_and_has_a_docstring() -> None:
    for name in cai_base.__all__:
        assert getattr(cai_base, name).__doc__, name


def test_type_checkers_see_the_names_that_are_there_at_run_time() -> None:
    tree = ast.parse(Path(cai_base.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {
        (alias.asname, node.module) for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    lazy = {(name, f"cai_base.{module}") for name, module in cai_base._WHERE.items()}
    assert imported == lazy


def test_the_page_of_the_api_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "scripts/write-api"), "--check"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_importing_the_package_imports_neither_torch_nor_transformers() -> None:
    code = "import sys, cai_base; sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_method_in_one_file_is_about_fifty_lines_and_runs(tmp_path: Path) -> None:
    """With fewer steps and prompts: the script as it stands takes minutes."""
    text = EXAMPLE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    steps = 'dpo={"steps": 100}'
    small = 'sft={"steps": 20}, dpo={"steps": 10}, revision={"rounds": 1}, evaluation={"response_tokens": 40}'
    assert text.count(steps) == text.count("first=42") == 1
    text = text.replace(steps, small).replace("first=42", "first=12")
    script = tmp_path / "cai.py"
    script.write_text(text, encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False, timeout=500
    )
    assert ended.returncode == 0, ended.stderr
    rates = re.findall(r"(\S+) +attack success +(\d+)% +over-refusal +(\d+)%", ended.stdout)
    assert [name for name, *_ in rates] == ["base", "SFT", "CAI"]
    assert all(0 <= int(rate) <= 100 for _, *both in rates for rate in both)


def test_the_readme_shows_lines_of_the_example_as_they_are() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert shown.strip() in EXAMPLE.read_text(encoding="utf-8")
