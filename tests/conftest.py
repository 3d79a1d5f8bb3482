"""Settings for all tests."""

import os

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True)
settings.register_profile("searching", max_examples=2000)
# The same examples every time: a change is judged by what it does, not by luck.
# HYPOTHESIS_PROFILE=searching looks for new ones.
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
