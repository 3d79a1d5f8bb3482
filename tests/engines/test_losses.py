"""Every preference loss against TRL's, in value and gradient, on the same weights and the same tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from batches import gradient, pairs, stir, train
from datasets import Dataset
from peft import PeftModel
from test_referees import PAIRS, SHOTS, gradients_of, sequences
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from trl import DPOConfig, DPOTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer

from cai_base.engines import Adam, Batch, Datum, Step
from cai_base.engines.local import LocalEngine
from cai_base.method.losses import preference_loss
from cai_base.records import Reference
from cai_base.settings.presets import preset
from cai_base.settings.schema import LOSSES, Dpo

Make = Callable[..., LocalEngine]
SHARED = {
    "per_device_train_batch_size": len(PAIRS),
    "max_length": None,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "report_to": [],
    "disable_tqdm": True,
    "remove_unused_columns": False,
}


def settings(loss: str, **changes: Any) -> Dpo:
    return Dpo.model_validate(preset("original")["dpo"] | {"loss": loss, "beta": 0.3} | changes)


def data() -> Dataset:
    return Dataset.from_list([{"prompt": SHOTS + p, "chosen": c, "rejected": r} for p, c, r in PAIRS])


def ours(
    engine: LocalEngine,
    batch: Sequence[Datum],
    reference: Sequence[float] | None,
    dpo: Dpo,
    probabilities: Sequence[float] | None = None,
) -> Step:
    """One forward and backward of the engine's adapter `a` with this project's loss."""
    sides = list(zip(batch[::2], batch[1::2], strict=True))
    references = None
    if reference is not None:
        references = [
            Reference(id="", chosen=chosen, rejected=rejected, weights="")
            for chosen, rejected in zip(reference[::2], reference[1::2], strict=True)
        ]
    loss = preference_loss(sides, references, dpo, probabilities)
    step = engine.forward_backward({"a": Batch(batch, loss)}).result()["a"]
    assert isinstance(step, Step)
    return step


def assert_same_gradient(engine: LocalEngine, model: PeftModel) -> None:
    wanted: Tensor = gradients_of(model, engine)
    torch.testing.assert_close(gradient(engine, "a"), wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())


def policy(folder: str, adapter: Path) -> PeftModel:
    base: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder)
    return PeftModel.from_pretrained(base, adapter, is_trainable=True)


@dataclass(frozen=True, slots=True)
class Referee:
    """The engine's adapter `a` and TRL's trainer, with the same weights away from the same reference."""

    engine: LocalEngine
    trainer: DPOTrainer
    batch: Sequence[Datum]
    reference: Sequence[float]

    def loss(self, places: Sequence[int]) -> Tensor:
        """TRL's loss of a batch of these pairs."""
        rows = [self.trainer.train_dataset[place] for place in places]
        value: Tensor = self.trainer.compute_loss(self.trainer.model, self.trainer.data_collator(rows))
        return value


@pytest.fixture
def referee(engine: Make, folder: Callable[[str], str], tmp_path: Path) -> Callable[..., Referee]:
    """A function of settings of TRL's trainer, which makes them."""

    def make(**options: Any) -> Referee:
        local = engine("llama")
        local.create({"a": 1})
        stir(local, "a")
        local.export({"a": tmp_path / "reference"})
        config = DPOConfig(output_dir=str(tmp_path / "out"), beta=0.3, **options, **SHARED)
        tokenizer = AutoTokenizer.from_pretrained(folder("llama"))
        model = policy(folder("llama"), tmp_path / "reference")
        theirs = DPOTrainer(model, args=config, train_dataset=data(), processing_class=tokenizer)
        batch = sequences(theirs.train_dataset)
        reference = local.compute_logprobs({"a": batch})["a"]
        # Away from the reference, so that the loss says something: ours moves, TRL's follows.
        train(local, {"a": [pairs(5, 3), pairs(6, 3)]}, Adam(1e-2))
        local.export({"a": tmp_path / "moved"})
        moved = dict(policy(folder("llama"), tmp_path / "moved").named_parameters())
        for name, parameter in theirs.model.named_parameters():
            if parameter.requires_grad:
                parameter.data.copy_(moved[name])
        theirs.model.eval()
        return Referee(local, theirs, batch, reference)

    return make


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("loss", [name for name, one in LOSSES.items() if one.reference])
def test_a_loss_with_a_reference_is_trls(referee: Callable[..., Referee], loss: str) -> None:
    both = referee(loss_type=[loss])
    value = both.loss(range(len(PAIRS)))
    value.backward()
    step = ours(both.engine, both.batch, both.reference, settings(loss, **{"nll-weight": 0.0}))
    assert step.loss == pytest.approx(value.item(), rel=1e-4)
    assert_same_gradient(both.engine, both.trainer.model)


@pytest.mark.filterwarnings("ignore")
def test_equal_soft_labels_against_a_reference_are_the_label_smoothing_of_trls_dpo(
    referee: Callable[..., Referee],
) -> None:
    """TRL's DPOTrainer smooths the labels of `aot`, not of `sigmoid`. `aot` sorts the pairs of a batch; a single pair
    has the sigmoid loss."""
    both = referee(loss_type=["aot"], label_smoothing=0.2)
    values = [both.loss([place]) / len(PAIRS) for place in range(len(PAIRS))]
    for value in values:
        value.backward()
    plain = settings("sigmoid", **{"nll-weight": 0.0})
    step = ours(both.engine, both.batch, both.reference, plain, [0.8] * len(PAIRS))
    assert step.loss == pytest.approx(sum(value.item() for value in values), rel=1e-4)
    assert_same_gradient(both.engine, both.trainer.model)
    hard = ours(both.engine, both.batch, both.reference, plain)
    assert abs(hard.loss - step.loss) > 0.01, "the labels matter"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("loss", "smoothing"), [("simpo", 0.0), ("sigmoid", 0.3)])
def test_simpo_and_equal_soft_labels_are_trls(
    engine: Make, folder: Callable[[str], str], tmp_path: Path, loss: str, smoothing: float
) -> None:
    """TRL's label smoothing is in its trainer without a reference: there ours has one that is 0 for every response."""
    local = engine("llama")
    local.create({"a": 1})
    stir(local, "a")
    local.export({"a": tmp_path / "policy"})
    tokenizer = AutoTokenizer.from_pretrained(folder("llama"))
    tokenizer.pad_token = tokenizer.eos_token
    chosen: dict[str, Any] = {"loss_type": loss, "label_smoothing": smoothing, "simpo_gamma": 0.7, "cpo_alpha": 0.0}
    config = CPOConfig(output_dir=str(tmp_path / "out"), beta=0.3, **chosen, **SHARED)
    model = policy(folder("llama"), tmp_path / "policy")
    theirs = CPOTrainer(model, args=config, train_dataset=data(), processing_class=tokenizer)
    theirs.model.eval()
    rows = [theirs.train_dataset[i] for i in range(len(PAIRS))]
    value, _ = theirs.get_batch_loss_metrics(theirs.model, theirs.data_collator(rows), train_eval="eval")
    value.backward()
    batch = [labelled(row, side) for row in rows for side in ("chosen", "rejected")]
    reference = [0.0] * len(batch) if LOSSES[loss].reference else None
    dpo = settings(loss, **{"nll-weight": 0.0, "simpo-gamma": 0.7})
    step = ours(local, batch, reference, dpo, [1 - smoothing] * len(PAIRS))
    assert step.loss == pytest.approx(value.item(), rel=1e-4)
    assert_same_gradient(local, theirs.model)


def labelled(row: dict[str, Any], side: str) -> Datum:
    """TRL's own tokens and labels as the engine's."""
    weights = [0.0 if label == -100 else 1.0 for label in row[f"{side}_labels"]]
    return Datum(tuple(row[f"{side}_input_ids"]), tuple(weights))


def test_the_margin_of_simpo_is_per_token_and_that_of_sigmoid_a_sum() -> None:
    chosen, rejected = Datum((1, 2, 2), (0.0, 1.0, 1.0)), Datum((1, 3, 3, 3, 3), (0.0, 1.0, 1.0, 1.0, 1.0))
    logprobs = torch.tensor([-2.0, -8.0])
    plain = [Reference(id="", chosen=0.0, rejected=0.0, weights="")]
    sums = preference_loss([(chosen, rejected)], plain, settings("sigmoid", **{"nll-weight": 0.0}))(logprobs)
    means = preference_loss([(chosen, rejected)], None, settings("simpo", **{"nll-weight": 0.0}))(logprobs)
    assert sums.metrics["margin"] == pytest.approx(0.3 * 6)
    assert means.metrics["margin"] == pytest.approx(0.3 * 1)


def test_a_soft_label_is_the_mean_loss_over_which_response_is_better() -> None:
    side = (Datum((1, 2), (0.0, 1.0)), Datum((1, 3), (0.0, 1.0)))
    known = [Reference(id="", chosen=-1.0, rejected=-1.0, weights="")]
    dpo, logprobs = settings("sigmoid", **{"nll-weight": 0.0}), torch.tensor([-0.5, -3.0])

    def loss(probability: float, values: Tensor) -> float:
        return float(preference_loss([side], known, dpo, [probability])(values).loss)

    certain, turned = loss(1.0, logprobs), loss(1.0, logprobs.flip(0))
    assert loss(0.8, logprobs) == pytest.approx(0.8 * certain + 0.2 * turned)
    assert loss(0.5, logprobs) == pytest.approx(loss(0.5, logprobs.flip(0)))
