"""The phases of a run: each finds what it needs already done, and says what it costs."""

from cai_base import default_settings
from cai_base.arms import named
from cai_base.embedded import weights
from cai_base.engines.tokenizer import load_tokenizer
from cai_base.experiment import phases
from cai_base.inputs import gather
from cai_base.method.losses import FORMULAS
from cai_base.report.labels import GLOSSARY
from cai_base.run.cost import estimate, run_size
from cai_base.settings.command_line import help_text
from cai_base.settings.schema import LOSSES

ARMS, CONTROLS = ("sft", "cai", "sl-cai", "feedback", "sl-cai+feedback"), named("control")
EVERYTHING = default_settings("organism", "--arms", ",".join(ARMS), "--control", ",".join(CONTROLS))


def test_every_phase_finds_what_it_needs_already_done() -> None:
    done: list[str] = []
    for phase in phases(EVERYTHING, gather(EVERYTHING)):
        assert set(phase.needs) <= set(done), phase.name
        assert phase.name not in done
        done.append(phase.name)
    assert done[0] == "sft"
    assert {"revision", "pairs", "dpo", "sl-cai", "shuffled", "placebo", "revision of placebo"} <= set(done)
    assert {"responses of feedback", "pairs of sl-cai-feedback", "a-a", "refusals", "nll-only"} <= set(done)


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


def test_every_loss_of_the_table_has_a_formula_and_stands_in_the_help_and_the_glossary() -> None:
    assert set(FORMULAS) == set(LOSSES)
    assert f"--dpo.loss {'|'.join(LOSSES)}" in help_text()
    assert all(name in GLOSSARY["Loss"] for name in LOSSES)
