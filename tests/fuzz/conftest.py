"""A stored run to spoil."""

from pathlib import Path

import pytest
from report.conftest import _make


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _make(tmp_path_factory, seeds=1)
