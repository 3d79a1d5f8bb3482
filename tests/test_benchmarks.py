"""The benchmarks' rows can be measured: at their smallest size, for minutes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
ROWS = "ceilings,dpo,sft,seeds-3b,revision,decoding,evaluation,comparisons,memory"


@pytest.mark.slow
def test_every_row_of_the_gpus_script_is_measured_at_its_smallest_size(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--tiny", "--rows", ROWS, "--out", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=900)
    rows = json.loads((tmp_path / "gpu.json").read_bytes())["rows"]
    assert [name for name, row in rows.items() if "failed" in row or "left out" in row] == []
    assert list(rows) == ROWS.split(",")
    for name in ("dpo", "sft", "seeds-3b"):
        assert all(apart < 1e-3 for apart in rows[name]["equal"].values()), "both learn the same"
