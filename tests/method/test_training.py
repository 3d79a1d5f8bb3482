"""Learning rates, orders and losses."""

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from cai_base.engines import Adam, Datum, Failed, Step
from cai_base.method.dpo import TokenPair, accuracy, data, reference_batches
from cai_base.method.losses import preference_loss
from cai_base.method.sft import nll_loss
from cai_base.method.training import TrainingPlan, batch_indices, learning_rate, train
from cai_base.progress import Progress
from cai_base.records import Reference
from cai_base.settings.schema import Dpo, Training
from cai_base.store import Run


def settings(**changes: object) -> Training:
    given = {"steps": 10, "batch-size": 4, "learning-rate": 1.0, "warmup": 0.2, "schedule": "linear", "clip-norm": 1.0}
    return Training.model_validate(given | changes)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_learning_rate_rises_to_its_peak_and_is_never_zero(schedule: str) -> None:
    rates = [learning_rate(settings(schedule=schedule), step) for step in range(10)]
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert max(rates) == 1.0
    assert min(rates) > 0
    assert rates[2:] == sorted(rates[2:], reverse=True)


class LastUpdateBreaks:
    """An engine whose second adapter has no finite weights after its last update."""

    def forward_backward(self, batches: dict[str, None]) -> "LastUpdateBreaks":
        self.asked = list(batches)
        return self

    def result(self) -> dict[str, Step]:
        return {name: Step(1.0, {}, 4) for name in self.asked}

    def optim_step(self, adapters: list[str], adam: Adam) -> dict[str, Failed]:
        self.taken = getattr(self, "taken", 0) + 1
        return {"b": Failed("not finite")} if self.taken == 3 else {}

    def save(self, directories: dict[str, Path]) -> None:
        for directory in directories.values():
            directory.mkdir(parents=True)


def test_weights_that_break_in_the_last_update_fail_their_seed(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", {}, {})
    evaluated: list[list[str]] = []
    plan: Any = TrainingPlan("sft", "sft", True, settings(steps=3), {"a": 0, "b": 1}, lambda adapter, step: None)
    engine: Any = LastUpdateBreaks()
    with open(os.devnull, "w") as nowhere:
        failed = train(engine, run, plan, 100, lambda step, live: evaluated.append(live), Progress(nowhere))
    assert failed == {"b": "not finite"}
    assert evaluated == [["a"]]
    assert [len(run.lines(f"seed-{seed}/sft/metrics.jsonl")) for seed in range(2)] == [3, 2]


def test_cosine_passes_half_the_peak_halfway() -> None:
    assert learning_rate(settings(warmup=0.0, schedule="cosine"), 5) == pytest.approx(0.5)


def test_every_epoch_holds_every_item_once_in_its_own_order() -> None:
    drawn = [i for step in range(6) for i in batch_indices(8, seed=1, phase="dpo", step=step, size=4)]
    epochs = [drawn[i : i + 8] for i in range(0, 24, 8)]
    assert all(sorted(epoch) == list(range(8)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_a_batch_may_be_larger_than_the_data() -> None:
    assert sorted(batch_indices(3, seed=0, phase="sft", step=0, size=7))[:3] == [0, 0, 1]


def dpo(**changes: object) -> Dpo:
    given = settings().model_dump(by_alias=True) | {"pairs": 0, "beta": 0.1, "nll-weight": 0.0, "held-out": 0.0}
    return Dpo.model_validate(given | changes)


def reference(chosen: float, rejected: float) -> Reference:
    return Reference(id="", chosen=chosen, rejected=rejected, weights="")


def sides(pairs: list[TokenPair]) -> list[tuple[Datum, Datum]]:
    return [(pair.chosen, pair.rejected) for pair in pairs]


def pair(name: str, length: int) -> TokenPair:
    weights = (0.0, *[1.0] * length)
    return TokenPair(name, Datum((1, *[2] * length), weights), Datum((1, *[3] * length), weights))


def test_reference_batches_are_the_first_epochs_batches() -> None:
    pairs = [pair(str(i), 3) for i in range(10)]
    batches = reference_batches(pairs, [], seed=5, size=4)
    assert {p.id for one in batches for p in one} == {p.id for p in pairs}
    assert [p.id for p in batches[0]] == [pairs[i].id for i in batch_indices(10, 5, "dpo", 0, 4)]


def test_dpo_starts_at_log_two_with_no_margin() -> None:
    pairs = [pair("a", 2), pair("b", 3)]
    value = preference_loss(sides(pairs), [reference(-3.0, -4.0), reference(-5.0, -6.0)], dpo())(
        torch.tensor([-3.0, -4.0, -5.0, -6.0])
    )
    assert float(value.loss) == pytest.approx(math.log(2))
    assert value.metrics == {"margin": 0.0, "accuracy": 0.0, "chosen_reward": 0.0, "rejected_reward": 0.0}


def test_the_nll_term_is_the_mean_nll_per_token_of_the_chosen_responses() -> None:
    pairs, known = sides([pair("a", 2), pair("b", 3)]), [reference(-3.0, -4.0), reference(-5.0, -6.0)]
    logprobs = torch.tensor([-2.0, -5.0, -4.0, -9.0])
    with_nll, without = (
        float(preference_loss(pairs, known, dpo(**{"nll-weight": weight}))(logprobs).loss) for weight in (2.0, 0.0)
    )
    assert with_nll - without == pytest.approx(2.0 * 6.0 / 5)


def test_held_out_accuracy_counts_positive_margins() -> None:
    pairs = [pair("a", 2), pair("b", 2)]
    known = {"a": reference(-3.0, -3.0), "b": reference(-3.0, -3.0)}
    assert accuracy(pairs, [-1.0, -2.0, -2.0, -1.0], known, dpo()) == 0.5
    assert len(data(pairs)) == 4


def test_the_sft_loss_is_the_mean_over_trained_tokens() -> None:
    batch = [Datum((1, 2, 3), (0.0, 1.0, 1.0)), Datum((1, 2), (0.0, 1.0))]
    assert float(nll_loss(batch)(torch.tensor([-4.0, -2.0])).loss) == pytest.approx(2.0)
