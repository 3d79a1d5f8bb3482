"""Contenders in training: the local engine's step, and TRL's trainers on a PEFT model, from the same adapter.

TRL is used at its best for the case: reference log-probabilities computed beforehand, the weights in bf16 on a GPU with
the adapter in fp32 under autocast, fused AdamW, sdpa attention, no checkpointing, nothing logged or saved. (TRL 1.16's
`padding_free` is switched off in its DPO trainer.) SFT is tried padded and packed.
"""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset, disable_progress_bars
from frame import Clock, Steps, Taken, steps_of
from peft import PeftModel
from transformers import AutoModelForCausalLM, PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from workload import TextPair, with_end

from cai_base import Lora, default_settings, dpo_batch, reference_logprobs, sft_batch
from cai_base.dialogue import split_tokens
from cai_base.engines import Adam, Batch, Datum, Step
from cai_base.engines.local import LocalEngine
from cai_base.method.dpo import TokenPair

RANK, BATCH, RATE = 32, 4, 5e-5
LORA = Lora(RANK, RANK)
SETTINGS = default_settings("english", judge="none", dpo={"batch_size": BATCH}).dpo
WARM = 2


def quiet() -> None:
    """Other libraries' bars and advice stay out of the log."""
    disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


class _Laps(TrainerCallback):
    """What passes between the ends of two steps: the batch's making, forward, backward, update."""

    def __init__(self) -> None:
        self.taken: list[Taken] = []
        self._clock = Clock()

    def on_train_begin(self, *args: object, **kwargs: object) -> None:
        """Begin."""
        self.taken.clear()
        self._clock.lap()

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        """One step is over."""
        self.taken.append(self._clock.lap())


class Peer:
    """TRL on one model with the adapter that our engine exported.

    Args:
        folder: of the model.
        adapter: a PEFT folder.
        device: `cpu` or `cuda`.
    """

    def __init__(self, folder: Path, adapter: Path, device: str) -> None:
        quiet()
        self.device, self.scratch = device, adapter.parent / "trl"
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        base = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device)
        self.model = PeftModel.from_pretrained(base, adapter, is_trainable=True)
        self.tokenizer = with_end(folder)

    def _options(self, **more: Any) -> dict[str, Any]:
        return {
            "output_dir": str(self.scratch),
            "per_device_train_batch_size": BATCH,
            "learning_rate": RATE,
            "gradient_checkpointing": False,
            "bf16": self.device == "cuda",
            "use_cpu": self.device == "cpu",
            "save_strategy": "no",
            "logging_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
            "lr_scheduler_type": "constant",
            "weight_decay": 0.0,
            **more,
        }

    def dpo(self, pairs: Sequence[TextPair], **more: Any) -> DPOTrainer:
        """A DPO trainer on these pairs; its `train_dataset` has them as TRL tokenises them."""
        if "ref" in self.model.peft_config:  # an earlier trainer's
            self.model.delete_adapter("ref")
        rows = Dataset.from_list([{"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected} for p in pairs])
        options = {"precompute_ref_log_probs": True} | more
        config = DPOConfig(beta=SETTINGS.beta, max_length=None, disable_dropout=True, **self._options(**options))
        return DPOTrainer(self.model, args=config, train_dataset=rows, processing_class=self.tokenizer)

    def sft(self, examples: Sequence[tuple[str, str]], *, pack: bool = False, **more: Any) -> SFTTrainer:
        """An SFT trainer on these examples; packed, a batch is one row in which four of the longest have room."""
        rows = Dataset.from_list([{"prompt": prompt, "completion": answer} for prompt, answer in examples])
        longest = max(len(self.tokenizer(prompt + answer)["input_ids"]) for prompt, answer in examples) + 1
        options = {"packing": pack, "max_length": BATCH * longest if pack else None} | more
        if pack:
            options["per_device_train_batch_size"] = 1
        config = SFTConfig(**self._options(**options))
        return SFTTrainer(self.model, args=config, train_dataset=rows, processing_class=self.tokenizer)


def laps(trainer: Any, per_step: float = 1.0) -> Steps:
    """The trainer as a contender; `per_step`: how many of our batches one of its steps has."""
    counter = _Laps()
    trainer.add_callback(counter)
    trainer.remove_callback(PrinterCallback)

    def take(n: int) -> list[Taken]:
        trainer.args.max_steps = n + WARM
        trainer.train()
        return [Taken(one.wall / per_step, one.cpu / per_step) for one in counter.taken[WARM:]]

    return take


def losses_of(trainer: Any, steps: int) -> list[float]:
    """The losses of so many steps. Made with `logging_strategy="steps", logging_steps=1`."""
    trainer.remove_callback(PrinterCallback)
    trainer.args.max_steps = steps
    trainer.train()
    return logged_losses(trainer)


def logged_losses(trainer: Any) -> list[float]:
    """The losses of its last training, if it was made with `LOGGED`."""
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


APART = "worst difference, as a share of the first loss"
LOGGED: dict[str, Any] = {"logging_strategy": "steps", "logging_steps": 1}


def as_pairs(rows: Dataset) -> list[TokenPair]:
    """TRL's own tokens as the engine's pairs."""

    def datum(row: dict[str, Any], side: str) -> Datum:
        prompt, answer = row["prompt_ids"], row[side]
        return Datum((*prompt, *answer), (*[0.0] * len(prompt), *[1.0] * len(answer)))

    return [TokenPair(str(i), datum(r, "chosen_ids"), datum(r, "rejected_ids")) for i, r in enumerate(rows)]


def own_pairs(engine: LocalEngine, pairs: Sequence[TextPair]) -> list[TokenPair]:
    """The pairs as the engine's own tokens."""

    def datum(prompt: str, answer: str) -> Datum:
        before, after = split_tokens(engine.tokenizer, prompt, answer)
        return Datum((*before, *after), (*[0.0] * len(before), *[1.0] * len(after)))

    return [TokenPair(str(i), datum(p.prompt, p.chosen), datum(p.prompt, p.rejected)) for i, p in enumerate(pairs)]


def as_examples(rows: Dataset) -> list[Datum]:
    """TRL's own tokens as the engine's examples."""
    return [Datum(tuple(row["input_ids"]), tuple(float(label != -100) for label in row["labels"])) for row in rows]


BatchOf = Callable[[str, int], Batch]
"""From an adapter and a step to the batch that it learns from."""


def dpo_batches(engine: LocalEngine, pairs: Sequence[TokenPair], adapters: Sequence[str]) -> BatchOf:
    """DPO as in a run: the reference is known before the first step."""
    known = {adapter: reference_logprobs(engine, adapter, pairs, seed, BATCH) for seed, adapter in enumerate(adapters)}
    return lambda adapter, step: dpo_batch(pairs, known[adapter], adapters.index(adapter), step, SETTINGS)


def sft_batches(examples: Sequence[Datum], adapters: Sequence[str]) -> BatchOf:
    """SFT as in a run."""
    return lambda adapter, step: sft_batch(examples, adapters.index(adapter), "sft", step, BATCH)


def ours(engine: LocalEngine, adapters: Sequence[str], batch: BatchOf, losses: list[float] | None = None) -> Steps:
    """A step of all these adapters together; `losses` gets the first adapter's."""
    count = itertools.count()

    def step() -> None:
        number = next(count)
        pending = engine.forward_backward({adapter: batch(adapter, number) for adapter in adapters})
        engine.optim_step(adapters, Adam(RATE))
        outcome = pending.result()[adapters[0]]
        if losses is not None:
            assert isinstance(outcome, Step), outcome
            losses.append(outcome.loss)

    if len(adapters) == 1 and torch.cuda.is_available():  # a GPU's engine records the shapes that it meets again
        for _ in range(24):
            step()
    return steps_of(step, WARM)


def our_losses(engine: LocalEngine, adapter: str, batch: BatchOf, steps: int, rate: float) -> list[float]:
    """The losses of so many steps."""
    losses = []
    for number in range(steps):
        outcome = engine.forward_backward({adapter: batch(adapter, number)}).result()[adapter]
        if not isinstance(outcome, Step):
            raise RuntimeError(f"the adapter failed: {outcome}")
        losses.append(outcome.loss)
        engine.optim_step([adapter], Adam(rate))
    return losses


CHECKED, CHECK_RATE = 5, 1e-3
"""Steps, and their learning rate, over which losses are compared."""


def trajectory(
    kind: str,
    engine: LocalEngine,
    folder: Path,
    work: Path,
    examples: Sequence[tuple[str, str]],
    pairs: Sequence[TextPair],
) -> dict[str, Any]:
    """The losses of our engine and of TRL from the same adapter, on one batch over and over.

    Args:
        kind: `dpo`, `sft` or `packed sft`.
        engine: on the model of `folder`.
        work: where the adapter is exported.
        examples, pairs: of which the first batch is taken.
    """
    options = {**LOGGED, "learning_rate": CHECK_RATE}
    engine.create({"checked": 1})
    engine.export({"checked": work / "checked"})
    peer = Peer(folder, work / "checked", engine._model.device.type)
    if kind == "dpo":
        trainer = peer.dpo(pairs[:BATCH], **options)
        batch = dpo_batches(engine, as_pairs(trainer.train_dataset), ["checked"])
    else:
        data = as_examples(peer.sft(examples[:BATCH]).train_dataset)
        trainer = peer.sft(examples[:BATCH], pack=kind == "packed sft", **options)
        batch = sft_batches(data, ["checked"])
    theirs = losses_of(trainer, CHECKED)
    mine = our_losses(engine, "checked", batch, CHECKED, CHECK_RATE)
    engine.remove(["checked"])
    return {"ours": mine, "trl": theirs, **agreement(mine, theirs)}


def agreement(mine: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """How far two sequences of losses are apart, as a share of the first loss: a later one may be nearly 0."""
    worst = max(abs(a - b) for a, b in zip(mine, theirs, strict=True)) / abs(theirs[0])
    return {APART: round(worst, 6)}
