"""The phases of a run: their order, what each needs, and what each costs."""

from typing import Any

import pytest

from cai_base import default_settings
from cai_base.arms import named
from cai_base.embedded import weights
from cai_base.engines import Datum, Usage
from cai_base.engines.tokenizer import load_tokenizer
from cai_base.errors import UserError
from cai_base.experiment import phases
from cai_base.inputs import gather
from cai_base.method.dpo import TokenPair, dpo_batch
from cai_base.method.interpreter import Interpreter
from cai_base.method.losses import FORMULAS
from cai_base.method.phase import adapter_name, adapter_seed
from cai_base.method.sft import SftOnPairs, sft_batch
from cai_base.models import load_engine
from cai_base.progress import Progress
from cai_base.records import Reference
from cai_base.report.labels import GLOSSARY
from cai_base.run.preflight.feedback import check_feedback, feedback_cost, known_comparisons
from cai_base.run.spending.cost import estimate, run_size
from cai_base.settings.command_line import help_text
from cai_base.settings.feedback import Feedback
from cai_base.settings.schema import LOSSES, Training

ARMS, CONTROLS = ("sft", "cai", "sl-cai", "feedback", "sl-cai+feedback"), named("control")
EVERYTHING = default_settings("organism", arms=ARMS, control=CONTROLS)


def test_an_adapter_is_named_after_its_phase_and_its_seed() -> None:
    assert adapter_name("sl-cai", 12) == "sl-cai/12"
    assert adapter_seed(adapter_name("sl-cai", 12)) == 12
    with pytest.raises(ValueError, match="'model' is not the name of a phase's adapter"):
        adapter_seed("model")


def test_every_phase_finds_what_it_needs_already_done() -> None:
    done: list[str] = []
    for phase in phases(EVERYTHING, gather(EVERYTHING)):
        assert set(phase.needs) <= set(done), phase.name
        assert phase.name not in done
        done.append(phase.name)
    assert done[0] == "sft"
    assert {"revision", "pairs", "dpo", "sl-cai", "shuffled", "placebo", "revision of placebo"} <= set(done)
    assert {"responses of feedback", "pairs of sl-cai-feedback", "a-a", "refusals", "nll-only"} <= set(done)


@pytest.mark.parametrize("control", ["placebo", "examples-only"])
def test_inputs_that_were_gathered_without_a_control_cannot_make_its_phases(control: str) -> None:
    inputs = gather(default_settings("organism"))
    with pytest.raises(UserError, match=f"no constitution for the arm '{control}'; gather them from the settings"):
        phases(default_settings("organism", control=(control,)), inputs)


def test_the_cost_table_has_a_row_for_every_phase_that_takes_tokens() -> None:
    inputs, tokenizer = gather(EVERYTHING), load_tokenizer(str(weights()))
    plan, size = (
        phases(EVERYTHING, inputs),
        run_size(EVERYTHING.seeds, EVERYTHING.revision, EVERYTHING.evaluate_every, inputs, tokenizer),
    )
    usages = estimate(EVERYTHING, inputs, tokenizer, plan)
    taking = [phase.name for phase in plan if phase.cost(size).trained or phase.cost(size).sampled]
    assert set(taking) <= set(usages)
    assert usages["shuffled"] == usages["placebo"] == usages["feedback"] == usages["dpo"]
    assert usages["responses of feedback"].prefilled > usages["responses of unrevised"].prefilled
    assert abs(2 * usages["nll-only"].trained - usages["dpo"].trained) <= 1  # rounded


@pytest.mark.parametrize(
    ("arm", "flags"), [("sl-cai", {"arms": ("sft", "cai", "sl-cai")}), ("nll-only", {"control": ("nll-only",)})]
)
def test_an_arm_that_differs_from_dpo_in_the_loss_alone_has_its_steps_rate_and_batches(
    arm: str, flags: dict[str, Any]
) -> None:
    settings = default_settings("organism", **flags)
    if arm == "sl-cai":
        own = {one.name: one for one in phases(settings, gather(settings))}[arm]
        assert isinstance(own, SftOnPairs)
        assert (own.settings.steps, own.draws) != (settings.dpo.steps, "dpo"), "unless --sl-cai.as-dpo is given"
        settings = settings.model_copy(update={"sl_cai": settings.sl_cai.model_copy(update={"as_dpo": True})})
    phase = {one.name: one for one in phases(settings, gather(settings))}[arm]
    assert isinstance(phase, SftOnPairs)
    for field in Training.model_fields:
        assert getattr(phase.settings, field) == getattr(settings.dpo, field)
    assert settings.training_steps[arm] == settings.training_steps["cai"]
    pairs = [TokenPair(f"{n}", Datum((n, 0), (0.0, 1.0)), Datum((n, 1), (0.0, 1.0))) for n in range(30)]
    references = {pair.id: Reference(id=pair.id, chosen=0.0, rejected=0.0, weights="0") for pair in pairs}
    for step in range(12):
        ours = sft_batch([pair.chosen for pair in pairs], 3, phase.draws, step, phase.settings.batch_size)
        theirs = dpo_batch(pairs, references, 3, step, settings.dpo)
        assert list(ours.sequences) == list(theirs.sequences)[::2]


@pytest.mark.parametrize("reasons", [False, True])
def test_the_check_of_feedback_takes_at_most_what_was_foreseen(reasons: bool) -> None:
    engine = load_engine(EVERYTHING.base_model, Progress.quiet())
    inputs, known = gather(EVERYTHING), known_comparisons("world")[:2]
    settings = Feedback().model_copy(update={"principles": 2, "chain_of_thought": reasons, "thought_tokens": 8})
    foreseen = feedback_cost(inputs, settings, known, engine.tokenizer)
    before = sum(engine.meter.used.values(), Usage())
    check_feedback(Interpreter(engine, own=False), inputs, settings, known, 0)
    taken = sum(engine.meter.used.values(), Usage()) - before
    assert 0.8 * foreseen.prefilled < taken.prefilled <= foreseen.prefilled
    assert (taken.sampled > 0) == reasons
    assert taken.sampled <= foreseen.sampled
    without = EVERYTHING.model_copy(update={"arms": ("sft", "cai")})
    whole = estimate(EVERYTHING, inputs, engine.tokenizer, ())["preflight"]
    assert whole.prefilled > estimate(without, gather(without), engine.tokenizer, ())["preflight"].prefilled


def test_every_loss_of_the_table_has_a_formula_and_stands_in_the_help_and_the_glossary() -> None:
    assert set(FORMULAS) == set(LOSSES)
    assert f"--dpo.loss {'|'.join(LOSSES)}" in help_text()
    assert all(name in GLOSSARY["Loss"] for name in LOSSES)
