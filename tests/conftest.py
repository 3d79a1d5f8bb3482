"""Settings for all tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from small_run import PROMPTS, RUN

from cai_base.cli import look, main

settings.register_profile("repeatable", derandomize=True)
settings.register_profile("searching", max_examples=2000)
# The same examples every time: a change is judged by what it does, not by luck.
# HYPOTHESIS_PROFILE=searching looks for new ones.
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


LONG = ("run/test_kill_sweep", "recipes/test_recipes", "run/test_resume", "studies/test_study", "test_controls")
"""The files that take minutes. They begin first, so that no process is left with one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the longest files to the front, in the order of `LONG`."""
    order = {name: place for place, name in enumerate(LONG)}
    tests = Path(__file__).parent
    items.sort(key=lambda item: order.get(item.path.relative_to(tests).with_suffix("").as_posix(), len(LONG)))


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is read from or left in the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAI_BASE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, _own_cache: None) -> Path:
    """A small finished run on the embedded model: two seeds, two prompts, every kind of arm. Tests only read it."""
    folder = tmp_path_factory.mktemp("arms")
    (folder / "asked.jsonl").write_text(PROMPTS)
    prompts = ["--evaluation.prompts", str(folder / "asked.jsonl")]
    assert main(["run", *RUN, *prompts, "--out", str(folder / "run")]) == 0
    (folder / "asked.jsonl").unlink()  # from now on the run's folder is all there is
    return folder / "run"


@pytest.fixture(autouse=True, scope="session")
def _no_logs_for_inspect() -> Iterator[None]:
    """Runs write no logs for Inspect, be it installed or not: that takes seconds, and few tests are about it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(look, "inspect_is_installed", lambda: False)
        yield
