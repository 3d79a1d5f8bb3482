"""What a run has spent is known after any end of its process, and what is worked on again is counted and said."""

import json
import time
from pathlib import Path

import pytest

from cai_base.engines import Meter, SampleRequest, Usage, sampling_usage
from cai_base.errors import Stopped
from cai_base.paths import SPENDING
from cai_base.run.spending.budget import Budget
from cai_base.run.spending.prices import Prices
from cai_base.settings import command_line as flags
from cai_base.settings.schema import RunSettings
from cai_base.store import Run

PAID = "--engine tinker --model organism --lora.alpha 32 --price 1,10,100 --max-cost 0.5"
JUDGED = PAID + " --judge tinker:a/judge --instruct a/chat --arms sft,cai,instruct"


def opened(directory: Path, given: str) -> tuple[Run, Budget, Meter]:
    settings: RunSettings = flags.load_settings(given.split())[0]
    run = Run.open(directory) if directory.exists() else Run.create(directory, {"x": 1}, {})
    meter = Meter()
    return (
        run,
        Budget(Prices.of_models(settings.models, settings.price), settings.max_cost, run, {"method": meter}),
        meter,
    )


def test_work_in_progress_at_a_kill_is_repeated_and_counted(tmp_path: Path) -> None:
    run, budget, meter = opened(tmp_path / "run", PAID)
    with budget.phase("sft"):
        meter.count({"sft/0": Usage(trained=100), "sft/1": Usage(trained=100)})
        run.commit("sft", 1)
        meter.count({"sft/0": Usage(trained=30)})
    del run, budget  # killed: the second step was never stored
    run, budget, meter = opened(tmp_path / "run", PAID)
    assert budget.lost == Usage(trained=30)
    with budget.phase("sft"):
        meter.count({"sft/0": Usage(trained=30), "sft/1": Usage(trained=30)})
    del run, budget  # and once more, before anything was stored
    run, budget, meter = opened(tmp_path / "run", PAID)
    assert budget.lost == Usage(trained=90)
    with budget.phase("sft"):
        meter.count({"sft/0": Usage(trained=30), "sft/1": Usage(trained=30)})
    run.commit("sft", 2)
    record = budget.spending().dump()
    assert record["again"] == {"trained": 90, "prefilled": 0, "sampled": 0}
    assert {seed: used["trained"] for seed, used in record["tokens"]["sft"].items()} == {"0": 190, "1": 160}
    assert record["dollars"] == pytest.approx(350 * 100 / 1e6)
    assert opened(tmp_path / "run", PAID)[1].lost == Usage()
    budget.close()
    assert not (tmp_path / "run" / SPENDING).exists()


def test_a_commit_within_a_phase_stores_its_time_so_far_and_no_time_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    run, budget, _ = opened(tmp_path / "run", "")
    now += 5  # preflight
    with budget.phase("dpo"):
        now += 20
        run.commit("dpo", 1)
        assert Run.open(run.directory).usage["seconds"] == {"dpo": 20.0}
        with budget.phase("evaluation"):
            now += 3
        now += 10
    run.commit("dpo", 2)
    assert Run.open(run.directory).usage["seconds"] == {"dpo": 30.0, "evaluation": 3.0}
    run, budget, _ = opened(tmp_path / "run", "")
    with budget.phase("dpo"):
        now += 1.5
    assert run.usage["seconds"] == {"dpo": 31.5, "evaluation": 3.0}


def test_samples_in_flight_count_with_their_maximal_length(tmp_path: Path) -> None:
    _, budget, meter = opened(tmp_path / "run", PAID)
    requests = [SampleRequest("sft/0", (1,) * 20, 50, 1.0, (), seed) for seed in range(2)]
    with budget.phase("revision"):
        meter.count(sampling_usage(requests, [50, 50]))
        sent = json.loads((tmp_path / "run" / SPENDING).read_bytes())["tokens"]["revision"]["0"]
        meter.count({"sft/0": Usage(sampled=-60)})
    assert sent == {"trained": 0, "prefilled": 40, "sampled": 100}
    assert budget.spending().dump()["tokens"]["revision"]["0"] == {"trained": 0, "prefilled": 40, "sampled": 40}


def test_every_model_that_is_paid_is_in_the_budget_and_counts_against_the_limit(tmp_path: Path) -> None:
    _, budget, meter = opened(tmp_path / "run", JUDGED)
    judge, instruct = Meter(), Meter()
    judge.count({None: Usage(prefilled=10)})  # before the run had a directory
    budget.follow("judge", judge)
    budget.follow("instruct", instruct)
    with budget.phase("evaluation"):
        meter.count({None: Usage(prefilled=1)})
        judge.count({None: Usage(sampled=2)})
        instruct.count({None: Usage(sampled=3)})
    budget.check_budget()
    tokens = budget.spending().dump()["tokens"]
    assert tokens["preflight"]["judge"]["prefilled"] == 10
    assert {who: used["sampled"] for who, used in tokens["evaluation"].items()} == {
        "base": 0,
        "judge": 2,
        "instruct": 3,
    }
    judge.count({None: Usage(sampled=50_000)})
    with pytest.raises(Stopped, match=r"has cost 0\.5001 of the 0\.5 dollars"):
        budget.check_budget()


def test_without_a_paid_service_no_spending_file_is_written(tmp_path: Path) -> None:
    _, budget, meter = opened(tmp_path / "run", "--seeds 1")
    meter.count({None: Usage(sampled=5)})
    assert budget.spending().dump()["dollars"] is None
    assert not (tmp_path / "run" / SPENDING).exists()
