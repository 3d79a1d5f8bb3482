"""A stored run to spoil, and time for twenty thousand inputs."""

from pathlib import Path

import pytest
from report.conftest import _make

HOURS = 3600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test here may take hours on a busy machine: what an input may take is counted in seconds of CPU."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(12 * HOURS))


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _make(tmp_path_factory, seeds=1)
