"""What is locked, audited and released: the scripts say plainly what they checked and what they did not."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import cai_base

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = (ROOT / "locks/requirements.txt").read_text(encoding="utf-8")


def script(name: str, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / name), *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment or None)


def test_the_version_stands_in_one_place() -> None:
    assert cai_base.__version__ == PROJECT["version"]
    others = [
        path.relative_to(ROOT)
        for path in (*ROOT.glob("*"), *ROOT.glob("src/**/*.py"), *ROOT.glob("docs/*.md"))
        if path.is_file() and path.name != "pyproject.toml" and PROJECT["version"] in path.read_text("utf-8", "replace")
    ]
    assert others == []
    assert "\nversion:" not in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_the_locks_agree_with_the_constraints() -> None:
    ended = script("supply-chain", "--check")
    assert ended.returncode == 0, ended.stdout


def test_every_locked_package_has_hashes_and_all_direct_dependencies_are_locked() -> None:
    blocks = re.split(r"^(?=[a-z0-9])", LOCK, flags=re.M)[1:]
    assert len(blocks) > 150
    assert all("--hash=sha256:" in block for block in blocks)
    assert re.search(r"^numpy==.*(\n    --hash=sha256:[0-9a-f]{64}( \\)?){5,}", LOCK, re.M), "all files of a version"
    locked = {block.partition("==")[0] for block in blocks} | {"torch"}
    direct = [*PROJECT["dependencies"], *(one for extra in PROJECT["optional-dependencies"].values() for one in extra)]
    assert {re.split(r"[<>=\[;]", one)[0].lower() for one in direct} <= locked


def test_a_lock_that_lags_behind_is_named(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    for folder in ("locks", "scripts"):
        (tmp_path / folder).mkdir()
    for path in (ROOT / "locks").iterdir():
        (tmp_path / "locks" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "scripts/supply-chain").write_bytes((ROOT / "scripts/supply-chain").read_bytes())
    constraints = (tmp_path / "constraints.txt").read_text()
    (tmp_path / "constraints.txt").write_text(re.sub(r"^idna==.*$", "idna==99", constraints, flags=re.M))
    command = [sys.executable, str(tmp_path / "scripts/supply-chain"), "--check"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert re.search(r"idna is [0-9.]+ in locks/ and 99 in constraints.txt", ended.stdout)


def test_the_bill_of_materials_names_every_package_with_a_licence_where_it_is_known() -> None:
    material = json.loads((ROOT / "locks/sbom.cdx.json").read_bytes())
    assert material["bomFormat"] == "CycloneDX"
    assert material["metadata"]["component"]["version"] == PROJECT["version"]
    parts = {part["name"]: part for part in material["components"]}
    assert parts["pydantic"]["purl"].startswith("pkg:pypi/pydantic@")
    assert parts["pydantic"]["scope"] == "required"
    assert parts["pytest"]["scope"] == "optional"
    assert parts["numpy"]["licenses"]


def test_every_package_has_a_licence_or_it_is_said_that_none_is_declared() -> None:
    table = (ROOT / "locks/licenses.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([a-z0-9-]+) \| [0-9][^|]* \| ([^|]*) \| (?:runtime|extra) \|$", table, re.MULTILINE)
    assert len(rows) > 200
    assert [name for name, licence in rows if not licence.strip() or "not installed" in licence] == []
    # A package without any content of its own, which names others.
    assert [name for name, licence in rows if licence == "not declared"] == ["cuda-toolkit"]


@pytest.mark.parametrize(
    ("answer", "code", "strict", "says"),
    [
        ("import sys; sys.exit('no route to host')", 0, 3, "NOT CHECKED. None of {n} packages was compared"),
        (
            """print('{"dependencies": [{"name": "idna", "skip_reason": "not found"}]}')""",
            0,
            3,
            "NOT CHECKED: 1 of {n} packages (idna): not found",
        ),
        (
            """print('{"dependencies": [{"name": "a", "version": "1", "vulns": '
                '[{"id": "X-1", "fix_versions": ["2"]}]}]}')""",
            1,
            1,
            "a 1: X-1, put right in 2",
        ),
        (
            """print('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}')""",
            0,
            0,
            "no vulnerability of them",
        ),
    ],
)
def test_an_audit_never_passes_in_silence(tmp_path: Path, answer: str, code: int, strict: int, says: str) -> None:
    """pip-audit's answers are stood in for, since a vulnerability database need not be in reach of a test."""
    (tmp_path / "pip_audit.py").write_text(answer + "\n")
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/audit").write_bytes((ROOT / "scripts/audit").read_bytes())
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks/requirements.txt").write_text(
        "idna==3.20 \\\n    --hash=sha256:0\na==1 \\\n    --hash=sha256:0\n"
    )
    (tmp_path / "locks/torch.txt").write_text("# none\n")
    for flags, expected in (([], code), (["--strict"], strict)):
        command = [sys.executable, str(tmp_path / "scripts/audit"), *flags]
        environment = {"PYTHONPATH": str(tmp_path)}
        ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert ended.returncode == expected, ended.stderr
        assert says.format(n=2) in ended.stdout


def test_what_was_not_checked_is_said_again_on_the_same_day_without_asking_again(tmp_path: Path) -> None:
    (tmp_path / "pip_audit.py").write_text("open('calls', 'a').write('x'); raise SystemExit('no route to host')\n")
    for folder in ("scripts", "locks", ".venv"):
        (tmp_path / folder).mkdir()
    (tmp_path / "scripts/audit").write_bytes((ROOT / "scripts/audit").read_bytes())
    for name in ("requirements.txt", "torch.txt"):
        (tmp_path / "locks" / name).write_text("idna==3.20 \\\n    --hash=sha256:0\n")
    command = [sys.executable, str(tmp_path / "scripts/audit")]
    about = {"capture_output": True, "text": True, "cwd": tmp_path, "env": {"PYTHONPATH": str(tmp_path)}}
    first, second = (subprocess.run(command, check=False, **about) for _ in range(2))  # type: ignore[call-overload]
    assert "NOT CHECKED. None of 2 packages" in first.stdout
    assert second.stdout == first.stdout.replace("\n", " (asked today)\n")
    assert (tmp_path / "calls").read_text() == "x"
