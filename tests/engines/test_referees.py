"""Losses and gradients against those of TRL, PEFT and transformers, on the same weights and the same tokens."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from batches import dpo, gradient, nll, pairs, stir, train
from datasets import Dataset
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from cai_base.engines import Adam, Batch, Datum, LossValue, Step
from cai_base.engines.local import LocalEngine
from cai_base.engines.local.lora import views

Make = Callable[..., LocalEngine]

SHOTS = "User: how do I bake bread?\n\nAssistant: knead the dough, wait, and bake it.\n\nUser:"
PAIRS = [
    (" is the bread warm?\n\nAssistant:", " the bread is warm, and the dough is not.", " no."),
    (" who sells corn?\n\nAssistant:", " the miller.", " the baker sells bread; the miller grinds corn."),
    (" what did she say?\n\nAssistant:", " that the bread is warm", " nothing at all, I said that the dough is warm"),
]


def gradients_of(model: PeftModel, engine: LocalEngine) -> Tensor:
    """The gradients of PEFT's matrices in the order of the engine's flat vector."""
    named = {name.replace(".default", ""): p.grad for name, p in model.named_parameters() if p.grad is not None}
    flat = torch.zeros(1, engine._bank.size)
    for place, (a, b) in zip(engine._bank.places, views(engine._bank.places, flat), strict=True):
        a[0] = named.pop(f"base_model.model.{place.name}.lora_A.weight").T
        b[0] = named.pop(f"base_model.model.{place.name}.lora_B.weight").T
    assert not named
    return flat[0]


def trainer(folder: str, adapter: Path, out: Path, **options: Any) -> DPOTrainer:
    """TRL's trainer over `PAIRS`, all of them one batch, of the adapter that the engine exported."""
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), adapter, is_trainable=True)
    config = DPOConfig(
        output_dir=str(out),
        per_device_train_batch_size=len(PAIRS),
        beta=0.1,
        max_length=None,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        disable_tqdm=True,
        **options,
    )
    data = Dataset.from_list([{"prompt": SHOTS + p, "chosen": c, "rejected": r} for p, c, r in PAIRS])
    return DPOTrainer(model, args=config, train_dataset=data, processing_class=AutoTokenizer.from_pretrained(folder))


def sequences(rows: Dataset) -> list[Datum]:
    """TRL's own tokens as the engine's batch."""
    return [
        Datum((*row["prompt_ids"], *row[side]), (*[0.0] * len(row["prompt_ids"]), *[1.0] * len(row[side])))
        for row in rows
        for side in ("chosen_ids", "rejected_ids")
    ]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_dpo_is_trls_in_loss_metrics_and_gradients(
    engine: Make, folder: Callable[[str], str], tmp_path: Path, kind: str
) -> None:
    ours = engine(kind)
    ours.create({"a": 1})
    stir(ours, "a")
    ours.export({"a": tmp_path / "reference"})
    theirs = trainer(folder(kind), tmp_path / "reference", tmp_path / "out")
    batch = sequences(theirs.train_dataset)
    reference = ours.compute_logprobs({"a": batch})["a"]
    # Away from the reference, so that margins and accuracies say something: ours moves, TRL's follows.
    train(ours, {"a": [pairs(5, 3), pairs(6, 3)]}, Adam(1e-2))
    ours.export({"a": tmp_path / "moved"})
    moved = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder(kind)), tmp_path / "moved")
    policy = dict(moved.named_parameters())
    for name, p in theirs.model.named_parameters():
        if p.requires_grad:
            p.data.copy_(policy[name])
    theirs.model.eval()
    inputs = theirs.data_collator([theirs.train_dataset[i] for i in range(len(PAIRS))])
    loss = theirs.compute_loss(theirs.model, inputs)
    loss.backward()

    step = ours.forward_backward({"a": Batch(batch, dpo(reference))}).result()["a"]
    assert isinstance(step, Step)
    assert step.loss == pytest.approx(loss.item(), rel=1e-4)
    assert abs(step.metrics["rewards/margins"]) > 0.01
    logged = theirs._metrics["eval"]
    for name, value in step.metrics.items():
        assert value == pytest.approx(logged[name][-1], rel=1e-3, abs=1e-5), name
    wanted = gradients_of(theirs.model, ours)
    torch.testing.assert_close(gradient(ours, "a"), wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())


@pytest.mark.filterwarnings("ignore")
def test_dpo_follows_trls_trajectory(engine: Make, folder: Callable[[str], str], tmp_path: Path) -> None:
    steps, rate = 6, 5e-3
    ours = engine("llama")
    ours.create({"a": 1})
    stir(ours, "a")
    ours.export({"a": tmp_path / "adapter"})
    theirs = trainer(
        folder("llama"),
        tmp_path / "adapter",
        tmp_path / "out",
        max_steps=steps,
        learning_rate=rate,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        logging_steps=1,
        save_strategy="no",
        disable_dropout=True,
    )
    batch = sequences(theirs.train_dataset)
    theirs.train()
    wanted = [log["loss"] for log in theirs.state.log_history if "loss" in log]
    reference = ours.compute_logprobs({"a": batch})["a"]
    losses = []
    for _ in range(steps):
        step = ours.forward_backward({"a": Batch(batch, dpo(reference))}).result()["a"]
        assert isinstance(step, Step)
        losses.append(step.loss)
        ours.optim_step(["a"], Adam(rate))
    assert losses[-1] < 0.5 * losses[0]
    assert losses == pytest.approx(wanted, rel=2e-3, abs=1e-4)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral", "windowed"])
def test_sft_is_that_of_transformers_with_peft(
    engine: Make, folder: Callable[[str], str], tmp_path: Path, kind: str
) -> None:
    ours = engine(kind)
    ours.create({"a": 1})
    stir(ours, "a")
    ours.export({"a": tmp_path})
    batch = pairs(4, 3)
    theirs = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(folder(kind)), tmp_path, is_trainable=True
    ).eval()
    longest = max(len(s.tokens) for s in batch)
    ids = torch.tensor([[*s.tokens, *[0] * (longest - len(s.tokens))] for s in batch])
    labels = torch.tensor(
        [
            [t if w else -100 for t, w in zip(s.tokens, s.weights, strict=True)] + [-100] * (longest - len(s.tokens))
            for s in batch
        ]
    )
    present = torch.tensor([[1] * len(s.tokens) + [0] * (longest - len(s.tokens)) for s in batch])
    loss = theirs(input_ids=ids, attention_mask=present, labels=labels).loss
    loss.backward()

    weighted = sum(sum(s.weights) for s in batch)

    def mean_of_tokens(sums: Tensor) -> LossValue:
        return nll(sums * len(batch) / weighted)

    step = ours.forward_backward({"a": Batch(batch, mean_of_tokens)}).result()["a"]
    assert isinstance(step, Step)
    assert step.loss == pytest.approx(loss.item(), rel=1e-4)
    wanted = gradients_of(theirs, ours)
    torch.testing.assert_close(gradient(ours, "a"), wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())
