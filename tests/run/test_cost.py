"""What a run costs: foreseen as a bound, accounted as it is spent, and never beyond what it may by more than a unit."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from cai_base import arms, experiment
from cai_base.engines import Usage
from cai_base.engines.local import LocalEngine
from cai_base.errors import Stopped, UserError
from cai_base.inputs import gather
from cai_base.models import load_tokenizer
from cai_base.progress import Progress
from cai_base.run import start
from cai_base.run.spending import cost
from cai_base.run.spending.prices import Prices
from cai_base.settings import command_line as flags
from cai_base.settings.schema import RunSettings

PROMPTS = Path(__file__).parent / "resume_prompts.jsonl"
PAID = "--engine tinker --model organism --lora.rank 4 --lora.alpha 32 --price 0.1,0.4,0.5".split()
SMALL = (
    "--seeds 2 --sft.steps 4 --evaluate-every 2 --revision.prompts 6 --revision.unit 3 --revision.rounds 2 "
    "--dpo.steps 4 --dpo.batch-size 2 --dpo.held-out 0.3 --threads 1 --revision.response-tokens 60 "
    f"--revision.critique-tokens 16 --evaluation.response-tokens 16 --evaluation.prompts {PROMPTS}"
).split()


@pytest.fixture(scope="module")
def settings() -> RunSettings:
    return flags.load_settings([*PAID, *SMALL])[0]


@pytest.fixture
def quiet() -> Progress:
    return Progress(open("/dev/null", "w"))


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> None:
    """The local engine in the service's place: what is counted does not depend on who computes it."""
    load: Callable[..., LocalEngine] = start.load_engine  # type: ignore[assignment]
    monkeypatch.setattr(
        start,
        "load_engine",
        lambda base, progress, findings=None: load(replace(base, engine="local"), progress, findings),
    )


@pytest.mark.usefixtures("local")
def test_a_run_stays_below_its_estimated_cost_and_reports_its_cost(
    settings: RunSettings, tmp_path: Path, quiet: Progress
) -> None:
    run = experiment.begin(settings, tmp_path / "run", quiet)
    before_any_phase = json.loads((tmp_path / "run/manifest.json").read_bytes())
    run.finish()
    foreseen = cost.estimate(
        settings, gather(settings), run.session.engine.tokenizer, experiment.phases(settings, gather(settings))
    )
    spent = json.loads((tmp_path / "run/usage.json").read_bytes())["spent"]
    assert set(spent["tokens"]) == set(foreseen) == {"preflight", "sft", "revision", "evaluation", "dpo"}
    assert before_any_phase["found"]["spent"]["tokens"]["preflight"] == spent["tokens"]["preflight"]
    everything = sum((Usage(**usage) for seeds in spent["tokens"].values() for usage in seeds.values()), Usage())
    for phase, seeds in spent["tokens"].items():
        taken, bound = sum((Usage(**usage) for usage in seeds.values()), Usage()), foreseen[phase]
        for kind, tokens in asdict(taken).items():
            assert tokens <= 1.05 * asdict(bound)[kind], (phase, kind)
            assert tokens > 0 or asdict(bound)[kind] == 0 or kind == "prefilled", (phase, kind)
        assert set(seeds) <= {"0", "1", "base"}
    assert everything.trained >= 0.5 * sum(foreseen.values(), Usage()).trained
    dollars = (everything.prefilled * 0.1 + everything.sampled * 0.4 + everything.trained * 0.5) / 1e6
    assert spent["dollars"] == pytest.approx(dollars, abs=1e-5)


@pytest.mark.usefixtures("local")
def test_a_run_stops_at_its_limit_and_continues_with_a_higher_one(
    settings: RunSettings, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without a `Progress`, which Python does not need to give: nothing is shown."""
    limited = settings.model_copy(update={"max_cost": 0.003})
    with pytest.raises(Stopped, match=r"has cost 0\.00\d\d of the 0\.003 dollars of --max-cost"):
        experiment.begin(limited, tmp_path / "run").finish()
    before = json.loads((tmp_path / "run/manifest.json").read_bytes())
    assert 0 < before["progress"]["sft"] <= 4
    with pytest.raises(Stopped, match="give resume a higher --max-cost"):
        experiment.resume(tmp_path / "run").finish()
    experiment.resume(tmp_path / "run", max_cost=10.0).finish()
    assert capfd.readouterr() == ("", "")
    spent = json.loads((tmp_path / "run/usage.json").read_bytes())["spent"]
    assert spent["dollars"] > 0.003
    assert set(spent["tokens"]["sft"]) == {"0", "1"}


def test_a_price_is_three_numbers(settings: RunSettings) -> None:
    known = Prices.of_models(settings.models, settings.price).of_model("organism")
    assert known is not None
    assert known.of(Usage(trained=1_000_000, prefilled=2_000_000, sampled=3_000_000)) == pytest.approx(1.9)
    for wrong in ("0.1", "0.1,0.2", "a,b,c", "-1,1,1", "nan,1,1"):
        with pytest.raises(UserError, match=r"--price .*: give dollars per million tokens"):
            flags.load_settings([*PAID[:-2], f"--price={wrong}", *SMALL])
    table = Prices.of_models(settings.models, None)
    assert table.of_model("organism") is None
    assert table.of_model("Qwen/Qwen3-8B") is not None


def test_a_cost_limit_needs_a_paid_service() -> None:
    with pytest.raises(UserError, match="--max-cost: applies only to --engine tinker"):
        flags.load_settings(["--max-cost", "3"])
    with pytest.raises(UserError, match="--tinker-url: applies only to --engine tinker"):
        flags.load_settings(["--tinker-url", "http://localhost:8000"])
    of_interpreter = flags.load_settings(["--interpreter", "tinker:some/model", "--max-cost", "3"]).settings
    assert Prices.of_models(of_interpreter.models, None).models == {"interpreter": "some/model"}
    with pytest.raises(UserError, match="--model is missing: --engine tinker has no default model"):
        flags.load_settings(["--engine", "tinker"])


@pytest.mark.parametrize("name", [*arms.named("trained"), *arms.named("control")])
def test_a_run_makes_and_pays_for_its_own_chains_only_if_an_arm_is_trained_on_them(name: str) -> None:
    before = arms.arm(name).starts_from
    trained = dict.fromkeys(one for one in (arms.BASELINE, before, name) if arms.arm(one).group == "trained")
    control = [] if name in trained else ["--control", name]
    settings = flags.load_settings([*PAID, *SMALL, "--arms", ",".join(trained), *control])[0]
    inputs = gather(settings)
    of_run = experiment.phases(settings, inputs)
    needs = {need for phase in of_run for need in phase.needs if phase.name != "pairs"}
    assert {phase.name for phase in of_run} >= needs, "what a phase reads is made"
    assert ("revision" in {phase.name for phase in of_run}) == bool({"revision", "pairs"} & needs)
    made = cost.estimate(settings, inputs, load_tokenizer(settings.base_model), of_run)
    assert ("revision" in made) == bool({"revision", "pairs"} & needs)
