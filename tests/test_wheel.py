"""The built wheel is complete: code, data, templates, weights. A default run needs no network; telemetry is off."""

import os
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from cai_base import TELEMETRY_OFF

ROOT = Path(__file__).resolve().parents[1]
TINY = (
    "run --seeds 1 --sft.steps 2 --revision.prompts 4 --revision.rounds 1 --dpo.steps 2 --dpo.batch-size 2 --json"
).split()


def build(out: Path) -> Path:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), str(ROOT)]
    subprocess.run(command, check=True)
    (wheel,) = out.glob("cai_base-*.whl")
    return wheel


WATCHED = """
import sys
asked = []
def note(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto") and "AF_UNIX" not in repr(arguments):
        asked.append(event + repr(arguments[1:]))
sys.addaudithook(note)
from cai_base.cli import main
code = main(sys.argv[1:])
print("asked the network:", asked, file=sys.stderr)
sys.exit(code)
"""
"""A program that runs a command and says which addresses and names of hosts Python code asked for."""


@dataclass(frozen=True)
class WheelRun:
    """A tiny run from the installed wheel, in a namespace without a network where that is permitted."""

    package: str
    folder: Path
    ended: subprocess.CompletedProcess[str]
    without_network: bool


@pytest.fixture(scope="module")
def wheel_run(tmp_path_factory: pytest.TempPathFactory) -> WheelRun:
    """Its dependencies come from this environment; everything of ours comes from the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel, target = build(folder), folder / "installed"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(command, check=True)
    where = [sys.executable, "-c", "import cai_base; print(cai_base.__file__)"]
    environment = os.environ | {"PYTHONPATH": str(target)}
    package = subprocess.run(where, env=environment, cwd=folder, capture_output=True, text=True, check=True).stdout
    isolated = ["unshare", "--user", "--map-root-user", "--net"]
    permitted = shutil.which("unshare") and subprocess.run([*isolated, "true"], capture_output=True).returncode == 0
    program = [*(isolated if permitted else []), sys.executable, "-c", WATCHED, *TINY]
    ended = subprocess.run(program, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    return WheelRun(package, target, ended, bool(permitted))


def test_the_wheel_runs_from_an_empty_directory(wheel_run: WheelRun) -> None:
    assert wheel_run.package.startswith(str(wheel_run.folder))
    assert wheel_run.ended.returncode == 0, wheel_run.ended.stderr
    assert '"schema": 1' in wheel_run.ended.stdout


def test_a_default_run_asks_no_host(wheel_run: WheelRun) -> None:
    assert "asked the network: []" in wheel_run.ended.stderr


def test_a_default_run_needs_no_network(wheel_run: WheelRun) -> None:
    if not wheel_run.without_network:
        pytest.skip("a network namespace (unshare --user --net) is not permitted here")
    assert wheel_run.ended.returncode == 0, wheel_run.ended.stderr


def test_telemetry_of_every_dependency_is_off() -> None:
    """As the libraries themselves read it, where they are installed; and in the environment of what we start."""
    from huggingface_hub import constants

    assert constants.HF_HUB_DISABLE_TELEMETRY
    if find_spec("wandb"):
        from wandb import env

        assert not env.error_reporting_enabled()
    off = {name: os.environ.get(name) for name in TELEMETRY_OFF}
    assert off == dict(TELEMETRY_OFF)
    assert set(off) > {"TINKER_TELEMETRY", "GRADIO_ANALYTICS_ENABLED", "DO_NOT_TRACK"}
    assert "INSPECT_TELEMETRY" not in os.environ, "inspect sends telemetry only to a function that this names"


def test_a_user_who_wants_telemetry_keeps_it() -> None:
    program = "import os, cai_base; print(os.environ['TINKER_TELEMETRY'], os.environ['WANDB_ERROR_REPORTING'])"
    environment = os.environ | {"TINKER_TELEMETRY": "1"}
    said = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["1", "false"]


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
