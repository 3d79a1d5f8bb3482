"""Settings for all tests."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from cai_base.cli import look

settings.register_profile("repeatable", derandomize=True)
settings.register_profile("searching", max_examples=2000)
# The same examples every time: a change is judged by what it does, not by luck.
# HYPOTHESIS_PROFILE=searching looks for new ones.
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is read from or left in the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAI_BASE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_logs_for_inspect() -> Iterator[None]:
    """Runs write no logs for Inspect, be it installed or not: that takes seconds, and few tests are about it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(look, "inspect_is_installed", lambda: False)
        yield
