"""The built wheel alone is enough: code, data, templates and weights."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TINY = (
    "run --seeds 1 --sft.steps 2 --revision.prompts 4 --revision.rounds 1 --dpo.steps 2 --dpo.batch-size 2 --json"
).split()


def build(out: Path) -> Path:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), str(ROOT)]
    subprocess.run(command, check=True)
    (wheel,) = out.glob("cai_base-*.whl")
    return wheel


def test_the_wheel_runs_from_an_empty_directory(tmp_path: Path) -> None:
    """Its dependencies come from this environment; everything of ours comes from the wheel."""
    wheel = build(tmp_path)
    target = tmp_path / "installed"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(command, check=True)
    where = [sys.executable, "-c", "import cai_base; print(cai_base.__file__)"]
    environment = os.environ | {"PYTHONPATH": str(target)}
    found = subprocess.run(where, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.startswith(str(target))
    ended = subprocess.run(
        [sys.executable, "-m", "cai_base", *TINY],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert '"schema": 1' in ended.stdout


@pytest.mark.slow
def test_the_wheel_runs_in_an_empty_environment(tmp_path: Path) -> None:
    wheel = build(tmp_path)
    venv.create(tmp_path / "environment", with_pip=True)
    binaries = tmp_path / "environment/bin"
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    for what in ("torch", str(wheel)):
        subprocess.run([binaries / "pip", "install", "--quiet", *constraints, what], check=True)
    ended = subprocess.run([binaries / "cai-base", *TINY], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert '"schema": 1' in ended.stdout
