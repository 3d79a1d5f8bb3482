"""The public API: its docstrings, and the method in one file."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import cai_base

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples/cai_in_one_file.py"


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
    small = '*"--sft.steps 20 --dpo.steps 10 --revision.rounds 1 --evaluation.response-tokens 40".split()'
    assert text.count('"--dpo.steps", "100"') == text.count("first=42") == 1
    text = text.replace('"--dpo.steps", "100"', small).replace("first=42", "first=12")
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
