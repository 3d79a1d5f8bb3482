"""The local engine: one frozen Hugging Face model in this process, on CPU or CUDA, and stacked LoRA adapters."""

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import safe_open
from transformers import PreTrainedModel

from cai_base import machine
from cai_base.engines import (
    AUTO,
    Adam,
    Adapter,
    Batch,
    Datum,
    EngineError,
    EngineSpec,
    Failed,
    Findings,
    Lora,
    Meter,
    Outcome,
    Pending,
    Sample,
    SampleListener,
    SampleRequest,
    Step,
    TokenLogprobs,
    Usage,
    sampling_usage,
)
from cai_base.engines.local import large_head, peft_format, precision
from cai_base.engines.local.forward import Layout, logprob_sums, recomputation
from cai_base.engines.local.graphs import Graphs, Recorded
from cai_base.engines.local.layout import choose_layout
from cai_base.engines.local.lora import Bank, Place, share_note
from cai_base.engines.local.model import load, text_decoder
from cai_base.engines.local.packing import distinct_tokens, padded_tokens
from cai_base.engines.local.sampling import Sampler
from cai_base.engines.weight_files import save_weights

FORWARD_TOKENS = 32768
"""The most tokens of sequences in one forward pass; adapters that do not fit go through in several passes."""
CPU_MEMORY = 8 << 30
"""The bytes that activations and caches may take on a CPU: a constant, so that batches are the same on every
machine."""
ACTIVATIONS = 41
"""The bytes that one decoder layer stores for the backward pass in 16-bit precision, per token and hidden unit, for a
Llama whose inner width is 2.7 times its hidden width: two norms in fp32 (8), attention (12), and the MLP (21)."""
ACTIVATION_SHARE = 3
"""Activations may take this fraction (1/n) of the GPU memory beside the weights; adapters and logits need the rest."""
ROWS = {"cpu": 256, "cuda": 1024}
"""The most responses that are sampled at a time: on a GPU a step of many rows takes as long as one of few."""
OPTIMIZER = "optimizer.safetensors"
PLAIN = "The weather was cold this morning, so we stayed at home and read a book until it was time for lunch."
"""A text whose likelihood with and without a first token shows whether the model expects one."""
CLEARLY = 0.1
"""A first token that lowers the mean NLL by more than this, in nats per token, is one that the model expects."""


class ImmediateOutcomes:
    """The outcomes of a `forward_backward` call that has finished."""

    def __init__(self, outcomes: dict[Adapter, Outcome]) -> None:
        self._outcomes = outcomes

    def result(self) -> dict[Adapter, Outcome]:
        return self._outcomes


class LocalFindings(Findings):
    """How batches of the model are laid out.

    Attributes:
        checked: tokens of the sequences at which the layout was found to be right.
    """

    layout: Layout
    checked: int


class LocalEngine:
    """An engine in this process, on CPU or one CUDA device; the verbs are described at `cai_base.engines.Engine`.

    Args:
        model: folder or hub id of a causal language model.
        lora: shape of the adapters; None for a model that is not trained.
        sequence_length: length of the longest sequence to expect. Whether packing is valid is checked at this length,
            and checked again if a longer sequence comes.
        name: the base model's name in exported adapters; `model` by default.
        rows: the most responses that are sampled at a time; None takes `ROWS` of the device.
        device: `cpu` or `cuda`; None takes CUDA if it is available.
        dtype: of the weights, activations and caches; None takes bfloat16 on CUDA and float32 on a CPU. Adapters, their
            gradients and their optimizer are in float32.
        threads: CPU threads; None or 0 leaves the choice to PyTorch.
        pack: False pads batches even if packing is valid, to compare the two.
        findings: `findings()` of the engine that an interrupted run used, whose layout is restored. With None the
            layout is determined here; another PyTorch version or sequence length may lead to another one, and a resumed
            run would then differ from an uninterrupted one.
        tokenizer_of: folder or hub id of the tokenizer to use, such as an adapter's; `model` by default.
        thinking: False switches a chat model's thinking off if its chat template has such a switch.

    Raises:
        EngineError: the model cannot be loaded, or is not the one that `findings` describe.
    """

    def __init__(
        self,
        model: str,
        lora: Lora | None,
        *,
        sequence_length: int,
        name: str | None = None,
        rows: int | None = None,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        threads: int | None = None,
        pack: bool = True,
        findings: Findings | None = None,
        tokenizer_of: str | None = None,
        thinking: bool = True,
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.model = name or model
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        dtype = dtype or (torch.bfloat16 if place.type == "cuda" else torch.float32)
        base = load(model, place, dtype, tokenizer_of=tokenizer_of, thinking=thinking)
        self.tokenizer = base.tokenizer
        self.context_length = base.context_length
        self._model, self._digest, self._file_notes = base.model, base.digest, base.tokenizer.notes + base.notes
        if lora is not None:
            self._file_notes += share_note(text_decoder(self._model), self._model.get_input_embeddings())
        large_head.read_once(self._model.get_output_embeddings())  # type: ignore[no-untyped-call]
        self.notes: tuple[str, ...] = ()
        self.meter = Meter()
        if findings is None:
            self._choose_layout(min(sequence_length, base.context_length), pack=pack)
        else:
            self._restore(findings)
        decoder = text_decoder(self._model)
        prefix = next((f"{name}." for name, module in self._model.named_modules() if name and module is decoder), "")
        self._trained = lora is not None
        self._bank = Bank(decoder, prefix, lora or Lora(rank=1, alpha=1.0))
        self._targets = peft_format.targets(self._model, self._bank.places)
        self._outside = peft_format.outside(self._model)
        memory = _memory(self._model)
        self._sampler = Sampler(self._model, self._bank, self.tokenizer, rows or ROWS[place.type], memory // 2)
        config = self._model.config.get_text_config()
        token = config.num_hidden_layers * config.hidden_size * ACTIVATIONS * dtype.itemsize // 2
        self._graphs = Graphs(self._model, self._bank) if place.type == "cuda" and self.packed else None
        self._kept_tokens = memory // ACTIVATION_SHARE // token if place.type == "cuda" else None

    @property
    def packed(self) -> bool:
        """Whether batches are packed as prefix tries."""
        return self._layout.packed

    @property
    def narrowest(self) -> Place:
        """The adapted layer with the smallest side: an update of it has no higher rank than that side."""
        return min(self._bank.places, key=lambda place: min(place.inputs, place.outputs))

    def too_large(self, adapters: int) -> str | None:
        """Why so many adapters cannot be trained together in the device's memory; None if they can."""
        weights = sum(sum(place.sizes) for place in self._bank.places)
        on_cpu = self._model.device.type == "cpu"
        room = (
            machine.memory() - self._sampler.ordered.size
            if on_cpu
            else int(torch.cuda.mem_get_info(self._model.device)[0])
        )
        return machine.too_large(adapters, weights, room)

    def precision_advice(self) -> str | None:
        """A sentence where this processor computes such a model faster in the other precision; None elsewhere."""
        return precision.advice(self._model.device, self._model.dtype, self._model.num_parameters())

    @property
    def device(self) -> str:
        return device_name(self._model.device)

    def findings(self) -> LocalFindings:
        return LocalFindings(model=self._digest, layout=self._layout, checked=self._checked, notes=self.notes)

    def _restore(self, findings: Findings) -> None:
        """Restore the layout recorded by the interrupted run."""
        if findings.model != self._digest:
            reason = "its weights differ from those that this run began with"
            raise EngineError("model", self.model, reason, "put those back, or start a new run")
        stored = findings.model_dump()
        own = LocalFindings.model_validate(stored)
        self._layout, self._checked, self.notes = own.layout, own.checked, own.notes
        if "cache" not in stored["layout"]:  # of a version that chose it when it first drew a response
            now, _ = choose_layout(self._model, self._digest, own.checked, pack=self.packed)
            self._layout = replace(self._layout, cache=now.cache)

    def _choose_layout(self, length: int, *, pack: bool = True) -> None:
        self._checked = length
        self._layout, note = choose_layout(self._model, self._digest, length, pack=pack)
        on_cpu = self._model.device.type == "cpu" and self._model.dtype == torch.bfloat16
        rounded = ("Computed in bfloat16 on a CPU",) if on_cpu else ()
        self.notes = (*self._file_notes, *rounded, *([note] if note else []))
        if (first := self.tokenizer.unused_bos) is not None:
            self.notes += (self._fluency_note(first),)

    def _fluency_note(self, first: int) -> str:
        """What plain English is worth with and without the first token that the tokenizer does not add."""
        name, text = self.tokenizer.decode_special(first), tuple(self.tokenizer.encode(PLAIN))
        sentence = f"The tokenizer has a first token ({name}) and does not add it"
        if len(text) < 2:
            return sentence
        weights = (0.0, *[1.0 / (len(text) - 1)] * (len(text) - 1))  # neither mean includes the text's first token
        with torch.inference_mode():
            padded = replace(self._layout, packed=False)
            pair = [Datum(text, weights), Datum((first, *text), (0.0, *weights))]
            without, following = (-value for value in logprob_sums(self._model, padded, [pair])[0].tolist())
        means = f"mean NLL per token of a plain English text: {following:.2f} with it, {without:.2f} without"
        advice = (
            "; its files may have lost that: set add_bos_token in tokenizer_config.json"
            if following < without - CLEARLY
            else ""
        )
        return f"{sentence} ({means}){advice}"

    def _expect(self, longest: int) -> None:
        """Refuse a sequence beyond the context; check packing again if one is longer than expected: it may exceed a
        sliding window."""
        if longest > self.context_length:
            reason = f"a sequence of {longest} tokens does not fit its context of {self.context_length}"
            raise EngineError("model", self.model, reason, "give shorter prompts, or fewer tokens per response")
        if self.packed and longest > self._checked:
            self._choose_layout(max(longest, min(2 * self._checked, self.context_length)))

    def create(self, adapters: Mapping[Adapter, int]) -> None:
        if not self._trained:
            raise EngineError("lora", None, "the model was loaded without adapters to train", "load it with a Lora")
        for name, seed in adapters.items():
            self._bank.create(name, seed)

    def copy(self, sources: Mapping[Adapter, Adapter]) -> None:
        for name, source in sources.items():
            self._bank.put(name, self._bank.adapters[source].parameters.clone())

    def remove(self, adapters: Sequence[Adapter]) -> None:
        for name in adapters:
            del self._bank.adapters[name]

    def forward_backward(self, batches: Mapping[Adapter, Batch]) -> Pending:
        self._expect(_longest(batch.sequences for batch in batches.values()))
        failed = {name: self._bank.adapters[name].failed for name in batches}
        outcomes: dict[Adapter, Outcome] = {name: Failed(why) for name, why in failed.items() if why is not None}
        live = [(name, batch.sequences) for name, batch in batches.items() if name not in outcomes]
        for turn in _turns(live):
            outcomes.update(self._forward_backward({name: batches[name] for name, _ in turn}))
        return ImmediateOutcomes({name: outcomes[name] for name in batches})

    def _forward_backward(self, batches: dict[Adapter, Batch]) -> dict[Adapter, Outcome]:
        recomputes = self._recomputes(batches.values())
        recompute = recomputation(self._model) if recomputes else nullcontext()
        with self._bank.active(list(batches), train=True) as parameters, recompute:
            recorder = None if recomputes or self._graphs is None else Recorded(self._graphs, parameters)
            sequences = [batch.sequences for batch in batches.values()]
            sums = logprob_sums(self._model, self._layout, sequences, recorder)
            values = [batch.loss(logprobs) for batch, logprobs in zip(batches.values(), sums, strict=True)]
            # A loss that is not finite affects the gradient of its own adapter only, since no sum mixes adapters.
            (gradients,) = torch.autograd.grad([value.loss for value in values], parameters)
            if recorder is not None:  # the next recorded pass overwrites it
                gradients = gradients.clone()
        outcomes: dict[Adapter, Outcome] = {}
        for (name, batch), value, gradient in zip(batches.items(), values, gradients, strict=True):
            loss = value.loss.item()
            failed = self._bank.accumulate(name, loss, gradient)
            tokens = sum(len(sequence.tokens) for sequence in batch.sequences)
            self.meter.count({name: Usage(trained=tokens)})
            outcomes[name] = Step(loss, value.metrics, tokens) if failed is None else Failed(failed)
        return outcomes

    def _recomputes(self, batches: Iterable[Batch]) -> bool:
        """Whether a GPU has no room for all activations of these batches."""
        if self._kept_tokens is None:
            return False
        tokens = [[sequence.tokens for sequence in batch.sequences] for batch in batches]
        total = sum(map(distinct_tokens if self.packed else padded_tokens, tokens))
        return bool(total > self._kept_tokens)

    def optim_step(self, adapters: Sequence[Adapter], adam: Adam) -> dict[Adapter, Failed]:
        reasons = {name: self._bank.step(name, adam) for name in adapters}
        return {name: Failed(reason) for name, reason in reasons.items() if reason is not None}

    def compute_logprobs(
        self, sequences: Mapping[Adapter | None, Sequence[Datum]]
    ) -> dict[Adapter | None, list[float]]:
        self._expect(_longest(sequences.values()))
        out: dict[Adapter | None, list[float]] = {name: [] for name in sequences}
        self.meter.count({a: Usage(prefilled=sum(len(one.tokens) for one in batch)) for a, batch in sequences.items()})
        pieces = [(name, piece) for name, batch in sequences.items() for piece in _pieces(batch)]
        for turn in _turns(pieces):
            with torch.inference_mode(), self._bank.active([name for name, _ in turn]):
                recorder = None if self._graphs is None else Recorded(self._graphs, None)
                sums = logprob_sums(self._model, self._layout, [piece for _, piece in turn], recorder)
            for (name, _), values in zip(turn, sums, strict=True):
                out[name] += values.tolist()
        return out

    def sample(self, requests: Sequence[SampleRequest], listener: SampleListener | None = None) -> list[Sample]:
        self._expect(max((len(request.prompt) + request.max_tokens for request in requests), default=0))
        samples = self._sampler.sample(requests, cache=self._layout.cache, listener=listener)
        self.meter.count(sampling_usage(requests, [len(sample.tokens) for sample in samples]))
        return samples

    def token_logprobs(self, adapter: Adapter | None, tokens: Sequence[int], most: int) -> list[TokenLogprobs | None]:
        """The log-probability of every token of a text given those before it; None for the first.

        Args:
            adapter: whose model reads it; None is the base model.
            tokens: of the text, at most `context_length`.
            most: how many of the most probable tokens are given at each place.
        """
        if len(tokens) > self.context_length:
            reason = f"{len(tokens)} tokens do not fit its context of {self.context_length}"
            raise EngineError("model", self.model, reason, "give a shorter text")
        self.meter.count({adapter: Usage(prefilled=len(tokens))})
        ids = torch.tensor([list(tokens)], device=self._model.device)
        with torch.inference_mode(), self._bank.active([adapter]):
            logits = self._model(input_ids=ids, use_cache=False).logits[0, :-1].float()
            logprobs = logits.log_softmax(dim=-1)
            own = logprobs.gather(1, ids[0, 1:, None])[:, 0].tolist()
            values, tops = (part.tolist() for part in logprobs.topk(min(most, logprobs.shape[-1]), dim=-1))
        places = zip(own, tops, values, strict=True)
        return [None, *(TokenLogprobs(value, tuple(zip(ids, of, strict=True))) for value, ids, of in places)]

    def save(self, directories: Mapping[Adapter, Path]) -> None:
        self.export(directories)
        for name, directory in directories.items():
            state = self._bank.adapters[name]
            # One metadata entry, because safetensors writes several of them in no fixed order.
            metadata = {"state": json.dumps({"steps": state.steps, "failed": state.failed})}
            save_weights({"first": state.first, "second": state.second}, directory / OPTIMIZER, metadata)

    def load(self, directories: Mapping[Adapter, Path], *, optimizer: bool) -> None:
        for name, directory in directories.items():
            flat = peft_format.read(directory, self._bank.settings, self._bank.places, self._outside)
            if not optimizer and peft_format.is_base(self._bank.places, flat):
                self.notes += (f"every B of the adapter {directory.name} is zero: it answers as its base model does",)
            state = self._bank.put(name, flat)
            if optimizer:
                with safe_open(directory / OPTIMIZER, "pt") as opened:
                    progress = json.loads(opened.metadata()["state"])
                    state.first.copy_(opened.get_tensor("first"))
                    state.second.copy_(opened.get_tensor("second"))
                state.steps, state.failed = progress["steps"], progress["failed"]

    def export(self, directories: Mapping[Adapter, Path]) -> None:
        for name, directory in directories.items():
            flat = self._bank.adapters[name].parameters
            peft_format.write(directory, self.model, self._bank.settings, self._bank.places, flat, self._targets)

    def fingerprint(self, adapter: Adapter) -> str:
        parameters = self._bank.adapters[adapter].parameters.cpu().numpy().tobytes()
        return hashlib.sha256(self._digest.encode() + parameters).hexdigest()


def device_name(device: torch.device) -> str:
    """The name of a GPU, or of the processor as Linux gives it."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"CPU: {next(names, '') or platform.machine()}"


def _memory(model: PreTrainedModel) -> int:
    """The bytes that are free for activations and caches, next to the model's weights."""
    if model.device.type == "cpu":
        return CPU_MEMORY
    total: int = torch.cuda.get_device_properties(model.device).total_memory
    return total - sum(p.numel() * p.itemsize for p in model.parameters())


def _longest(batches: Iterable[Sequence[Datum]]) -> int:
    """The length of the longest sequence, in tokens."""
    return max((len(sequence.tokens) for batch in batches for sequence in batch), default=0)


Name = TypeVar("Name", bound=Adapter | None)


def _turns(batches: Sequence[tuple[Name, Sequence[Datum]]]) -> list[list[tuple[Name, Sequence[Datum]]]]:
    """Batches grouped by forward pass: each group has at most `FORWARD_TOKENS` tokens, or is a single batch."""
    turns: list[list[tuple[Name, Sequence[Datum]]]] = []
    total = 0
    for name, batch in batches:
        tokens = sum(len(sequence.tokens) for sequence in batch)
        if not turns or total + tokens > FORWARD_TOKENS:
            turns.append([])
            total = 0
        turns[-1].append((name, batch))
        total += tokens
    return turns


def _pieces(batch: Sequence[Datum]) -> list[Sequence[Datum]]:
    """A batch divided, in order, into pieces of at most `FORWARD_TOKENS` tokens or a single sequence."""
    turns = _turns([(None, [sequence]) for sequence in batch])
    return [[sequence for _, (sequence,) in turn] for turn in turns]


def construct(spec: EngineSpec) -> LocalEngine:
    """The engine of a run.

    Raises:
        EngineError: as `LocalEngine`, no update of a layer has the rank of the adapters to train, or the memory is too
            small for all of them.
    """
    engine = LocalEngine(
        spec.model,
        peft_format.shape(spec.adapter) if spec.adapter else spec.lora,
        name=spec.name,
        sequence_length=spec.longest,
        dtype=None if spec.dtype == AUTO else getattr(torch, spec.dtype),
        threads=spec.threads,
        findings=spec.findings,
        tokenizer_of=None if spec.tokenizer is None else str(spec.tokenizer),
        thinking=spec.thinking,
    )
    layer = engine.narrowest
    largest = min(layer.inputs, layer.outputs)
    if spec.lora is not None and spec.adapter is None and spec.lora.rank > largest:
        reason = f"{layer.name} has {layer.inputs} inputs and {layer.outputs} outputs, whose update has no higher rank"
        raise EngineError("rank", spec.lora.rank, reason, f"give at most {largest}")
    begins = spec.lora is not None and spec.findings is None  # elsewhere the precision is a run's, or matters little
    if begins and (advice := engine.precision_advice()) is not None:
        spec.say(advice)
    if spec.lora is not None and spec.adapter is None:
        reason, _, remedy = (engine.too_large(spec.adapters) or "").partition("; ")
        if reason:
            raise EngineError("rank", spec.lora.rank, reason, remedy)
    return engine
