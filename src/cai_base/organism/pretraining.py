"""The pretraining loop: one pass over the rows, with checkpoints from which an interrupted build continues."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from cai_base import randomness
from cai_base.engines.weight_files import save_weights
from cai_base.organism.model import Settings, make_model, mean_loss
from cai_base.organism.optimizers import learning_rate_share, optimizers
from cai_base.organism.training_data import Rows
from cai_base.progress import Progress

CHECKPOINT_EVERY = 100
"""Steps between checkpoints: about a minute of work on two cores."""


@dataclass
class History:
    """For each finished step, its loss in nats per token and its duration in seconds."""

    loss: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def train(
    work: Path, rows: Rows, steps_per_part: tuple[int, int], seed: int, settings: Settings, progress: Progress
) -> tuple[LlamaForCausalLM, History]:
    """Train on the rows once, continuing from the checkpoint in `work` if there is one.

    Args:
        work: the folder of the checkpoint.
        rows: the training rows, `rows_per_step` for each step.
        steps_per_part: steps over the first and over the late part of the corpus.
        seed: the seed of the initial weights.
        settings: the model and its training.
        progress: shows the progress bar.

    Returns:
        The trained model, and the history of all steps.
    """
    model = make_model(settings, randomness.seed(seed, "pretraining", 0, "weights"))
    both = optimizers(model, settings)
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in both]
    steps = sum(steps_per_part)
    history = _restore(work, model, both)
    done = len(history.loss)
    with progress.bar("pretraining", total=steps, done=done, unit="steps") as bar:
        for step in range(done, steps):
            start = time.monotonic()
            batch = rows[step * settings.rows_per_step : (step + 1) * settings.rows_per_step].astype(np.int64)
            loss = mean_loss(model, torch.from_numpy(batch))
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            share = learning_rate_share(step, *steps_per_part, settings)
            for optimizer, rates in zip(both, peaks, strict=True):
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * share
                optimizer.step()
                optimizer.zero_grad()
            history.loss.append(float(loss.detach()))
            history.seconds.append(time.monotonic() - start)
            bar.advance(1)
            if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == steps:
                _checkpoint(work, model, both, history)
                progress.say(f"step {step + 1}: loss {np.mean(history.loss[-CHECKPOINT_EVERY:]):.3f}")
    return model, history


@torch.no_grad()
def validation_loss(model: LlamaForCausalLM, rows: Rows, settings: Settings) -> float:
    """The mean loss over batches of the validation rows, in nats per token; rows without tokens are left out."""
    full = rows[(rows >= 0).any(axis=1)].astype(np.int64)
    batches = [full[start : start + settings.rows_per_step] for start in range(0, len(full), settings.rows_per_step)]
    return float(np.mean([float(mean_loss(model, torch.from_numpy(batch))) for batch in batches]))


def _checkpoint(
    work: Path, model: LlamaForCausalLM, optimizers: Sequence[torch.optim.Optimizer], history: History
) -> None:
    """Store weights, optimizer state and history in one file, which atomically replaces the last checkpoint."""
    tensors = {f"model.{name}": parameter.detach() for name, parameter in model.named_parameters()}
    for number, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{index}.{name}": tensor for name, tensor in state.items()}
    part = work / "checkpoint.part"
    save_weights(tensors, part, metadata={"history": json.dumps(vars(history))})
    os.replace(part, work / "checkpoint.safetensors")


def _restore(work: Path, model: LlamaForCausalLM, optimizers: Sequence[torch.optim.Optimizer]) -> History:
    """Load the checkpoint, if there is one, into model and optimizers. Returns its history, else an empty one."""
    path = work / "checkpoint.safetensors"
    if not path.exists():
        return History()
    tensors = load_file(path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"model.{name}"])
    for number, optimizer in enumerate(optimizers):
        states: dict[int, dict[str, torch.Tensor]] = {}
        for key, tensor in tensors.items():
            if key.startswith(f"optimizer.{number}."):
                index, name = key.split(".")[2:]
                states.setdefault(int(index), {})[name] = tensor
        optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
    with safe_open(path, "pt") as file:
        return History(**json.loads(file.metadata()["history"]))
