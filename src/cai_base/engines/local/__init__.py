"""The local engine: one frozen Hugging Face model in this process, on CPU or CUDA, and stacked LoRA adapters."""

import hashlib
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cai_base.engines import Adam, Adapter, Batch, Failed, Lora, Outcome, Pending, Sample, SampleRequest, Sequence, Step
from cai_base.engines.local import peft_format
from cai_base.engines.local.forward import logprob_sums
from cai_base.engines.local.lora import Bank
from cai_base.engines.local.model import choose_layout, load
from cai_base.engines.local.sampling import sample

FORWARD_TOKENS = 32768
"""Tokens in one forward pass with gradients; more adapters than fit take turns."""


class Ready:
    """Outcomes that are already here."""

    def __init__(self, outcomes: dict[Adapter, Outcome]) -> None:
        self._outcomes = outcomes

    def result(self) -> dict[Adapter, Outcome]:
        return self._outcomes


class LocalEngine:
    """See `cai_base.engines.Engine` for what each verb means.

    Args:
        model: folder or hub id of a causal language model.
        lora: shape of the adapters.
        sequence_length: the run's longest sequence; packing is checked on a row as long.
        name: what the model is called where an adapter names its base; `model` by default.
        rows: how many responses are drawn at a time.
        device: `cpu` or `cuda`; None takes CUDA where there is one.
        threads: CPU threads; None leaves PyTorch's choice.

    Raises:
        UserError: the model cannot be loaded.
    """

    def __init__(
        self,
        model: str,
        lora: Lora,
        *,
        sequence_length: int,
        name: str | None = None,
        rows: int = 256,
        device: str | None = None,
        threads: int | None = None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.model = name or model
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        loaded = load(model, where, torch.bfloat16 if where.type == "cuda" else torch.float32)
        self.tokenizer = loaded.tokenizer
        self.context_length = loaded.context_length
        self._model, self._digest = loaded.model, loaded.digest
        self._layout, note = choose_layout(self._model, min(sequence_length, loaded.context_length))
        self.notes = (note,) if note else ()
        self._rows = rows
        decoder = self._model.base_model
        prefix = next((f"{name}." for name, module in self._model.named_modules() if name and module is decoder), "")
        self._bank = Bank(decoder, prefix, lora, where)

    @property
    def packed(self) -> bool:
        """Whether batches are packed by their prefix trie."""
        return self._layout.packed

    def create(self, adapters: Mapping[Adapter, int]) -> None:
        for name, seed in adapters.items():
            self._bank.create(name, seed)

    def remove(self, adapters: Seq[Adapter]) -> None:
        for name in adapters:
            del self._bank.adapters[name]

    def forward_backward(self, batches: Mapping[Adapter, Batch]) -> Pending:
        outcomes: dict[Adapter, Outcome] = {}
        live = {}
        for name, batch in batches.items():
            failed = self._bank.adapters[name].failed
            if failed is None:
                live[name] = batch
            else:
                outcomes[name] = Failed(failed)
        for names in _groups({name: batch.sequences for name, batch in live.items()}):
            outcomes.update(self._forward_backward({name: live[name] for name in names}))
        return Ready(outcomes)

    def _forward_backward(self, batches: dict[Adapter, Batch]) -> dict[Adapter, Outcome]:
        outcomes: dict[Adapter, Outcome] = {}
        with self._bank.active(list(batches), train=True) as gradients:
            assert gradients is not None
            sums, tokens = logprob_sums(self._model, self._layout, [b.sequences for b in batches.values()])
            total = torch.zeros((), device=gradients.device)
            for (name, batch), logprobs, count in zip(batches.items(), sums, tokens, strict=True):
                value = batch.loss(logprobs)
                loss = float(value.loss)
                if loss - loss == 0:  # finite
                    total = total + value.loss
                    outcomes[name] = Step(loss, value.metrics, count)
                else:
                    self._bank.adapters[name].failed = f"the loss is {loss}"
                    outcomes[name] = Failed(f"the loss is {loss}")
            if total.requires_grad:
                total.backward()
        for row, name in zip(gradients, batches, strict=True):
            self._bank.adapters[name].gradient = row
        return outcomes

    def optim_step(self, adapters: Seq[Adapter], adam: Adam) -> None:
        self._bank.step(list(adapters), adam)

    def compute_logprobs(self, sequences: Mapping[Adapter | None, Seq[Sequence]]) -> dict[Adapter | None, list[float]]:
        out: dict[Adapter | None, list[float]] = {}
        for names in _groups(sequences):
            with torch.inference_mode(), self._bank.active(names):
                sums, _ = logprob_sums(self._model, self._layout, [sequences[name] for name in names])
            out.update({name: s.tolist() for name, s in zip(names, sums, strict=True)})
        return out

    def sample(self, requests: Seq[SampleRequest]) -> list[Sample]:
        return sample(self._model, self._bank, self.tokenizer, requests, self._rows, self._layout.packed)

    def save(self, directories: Mapping[Adapter, Path]) -> None:
        for name, directory in directories.items():
            state = self._bank.adapters[name]
            directory.mkdir(parents=True, exist_ok=True)
            tensors = {"parameters": state.parameters, "first": state.first, "second": state.second}
            metadata = {"steps": str(state.steps)} | ({"failed": state.failed} if state.failed else {})
            save_file(tensors, directory / "state.safetensors", metadata=metadata)

    def load(self, directories: Mapping[Adapter, Path], *, optimizer: bool) -> None:
        for name, directory in directories.items():
            file = directory / "state.safetensors"
            tensors = load_file(file)
            state = self._bank.put(name, tensors["parameters"])
            with safe_open(file, "pt") as opened:
                metadata = opened.metadata()
            state.failed = metadata.get("failed")
            if optimizer:
                state.first = tensors["first"].to(self._bank.device)
                state.second = tensors["second"].to(self._bank.device)
                state.steps = int(metadata["steps"])

    def export(self, directories: Mapping[Adapter, Path]) -> None:
        for name, directory in directories.items():
            flat = self._bank.adapters[name].parameters
            peft_format.write(directory, self.model, self._bank.settings, self._bank.places, flat)

    def fingerprint(self, adapter: Adapter) -> str:
        parameters = self._bank.adapters[adapter].parameters.cpu().numpy().tobytes()
        return hashlib.sha256(self._digest.encode() + parameters).hexdigest()


Name = TypeVar("Name", bound=Adapter | None)


def _groups(batches: Mapping[Name, Seq[Sequence]]) -> list[list[Name]]:
    """Adapters that go through the model together: as many as `FORWARD_TOKENS` allows, at least one."""
    groups: list[list[Name]] = []
    held = FORWARD_TOKENS + 1
    for name, batch in batches.items():
        tokens = sum(len(s.tokens) for s in batch)
        if held + tokens > FORWARD_TOKENS:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += tokens
    return groups
