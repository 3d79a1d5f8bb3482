"""atheris on the project's own byte parsers, where it is installed: nothing but the expected errors comes out."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from fuzz.test_fuzz import TIMES

SCRIPT = Path(__file__).parents[2] / "scripts/fuzz-bytes"


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed: pip install atheris")
def test_the_byte_parsers_raise_nothing_but_what_their_callers_expect(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPT, "--runs", str(2000 * TIMES), "--work", tmp_path]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr[-4000:]}"
    assert ended.stdout.count(f"| {2000 * TIMES:,} |") == 5
