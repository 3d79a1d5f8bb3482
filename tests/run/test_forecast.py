"""The estimate of a run's time and memory, from a few timed steps before it."""

import json
from pathlib import Path

import pytest

from cai_base.engines.errors import EngineError
from cai_base.experiment import phases
from cai_base.inputs import gather
from cai_base.models import load_engine
from cai_base.progress import Progress
from cai_base.run.spending.forecast import forecast
from cai_base.settings.command_line import load_settings
from cai_base.settings.schema import RunSettings

SMALL = "--seeds 2 --threads 1 --revision.prompts 4 --revision.rounds 1 --revision.unit 2 --lora.rank 2".split()


def test_every_phase_has_an_expected_time_and_what_was_timed_leaves_nothing() -> None:
    settings = load_settings([*SMALL, "--sft.steps", "400", "--dpo.steps", "800"]).settings
    inputs, engine = gather(settings), load_engine(settings.base_model, Progress.quiet())
    made = forecast(settings, inputs, engine, phases(settings, inputs), [])
    assert made is not None
    parts, speed = made
    assert parts.keys() == {"sft", "revision", "dpo", "evaluation"}
    assert all(seconds > 0 for seconds in parts.values())
    assert parts["dpo"] > parts["sft"]
    assert speed.memory > 100_000_000  # torch alone has more
    with pytest.raises((KeyError, EngineError)):
        engine.fingerprint("forecast/0")


def test_before_a_short_run_nothing_is_timed() -> None:
    settings = load_settings([*SMALL, "--sft.steps", "2", "--dpo.steps", "2"]).settings
    inputs, engine = gather(settings), load_engine(settings.base_model, Progress.quiet())
    short = settings.model_copy(update={"evaluation": settings.evaluation.model_copy(update={"response_tokens": 4})})
    assert forecast(short, inputs, engine, phases(short, inputs), []) is None


def test_evaluations_are_counted_as_a_run_makes_them(finished: Path) -> None:
    settings = RunSettings.model_validate_json((finished / "config.json").read_bytes())
    made = json.loads((finished / "manifest.json").read_bytes())["progress"]
    assert settings.scope.evaluations == sum(name.startswith("evaluation of ") for name in made)
