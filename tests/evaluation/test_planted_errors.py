"""`benchmarks/judge_errors.py`: what it cannot read is one sentence."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/judge_errors.py"


@pytest.mark.parametrize(
    ("name", "said"), [("nothing", "not a run"), ("run", "2 seeds and 1 prompts .* 3 and 48 are drawn at once")]
)
def test_a_folder_that_it_cannot_use_is_one_sentence(name: str, said: str, finished: Path, tmp_path: Path) -> None:
    folder = finished if name == "run" else tmp_path
    ended = subprocess.run([sys.executable, SCRIPT, folder], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert re.search(said, ended.stderr), ended.stderr
