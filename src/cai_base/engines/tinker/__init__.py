"""The Tinker engine: the same verbs, executed by a service that implements the Tinker API.

Each adapter has its own LoRA training client. Requests of all adapters run concurrently; the service executes those of
one adapter in the order in which they were sent, so an optimizer step is sent before the gradient has arrived. Training
states and sampler snapshots are stored by the service, each under a new name, for `RETENTION` seconds.
"""

import hashlib
import json
import math
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from cai_base.engines import (
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
    Pending,
    Sample,
    SampleListener,
    SampleRequest,
    Usage,
    sampling_usage,
)
from cai_base.engines.errors import Adapters
from cai_base.engines.tinker import adapters as archives
from cai_base.engines.tinker.service import Answer, Refused, Service, sdk
from cai_base.engines.tinker.training import Flight, Trainee, datums, passes, token_count, token_logprobs, weighted_sums
from cai_base.engines.tokenizer import HubTokenizer, load_tokenizer, one_line
from cai_base.errors import Stopped

ALPHA = 32.0
"""The LoRA alpha of Tinker services, which cannot be changed (thinkingmachines.ai/blog/lora)."""
RETENTION_DAYS = 30
RETENTION = RETENTION_DAYS * 24 * 3600
"""How long the service stores a checkpoint, in seconds."""
SEEDS = 1 << 31
"""Seeds are sent modulo this number, because servers differ in the largest seed that they accept."""
STATE = "tinker.json"


class TinkerEngine:
    """An engine on a Tinker service; the verbs are described at `cai_base.engines.Engine`.

    Args:
        model: the name of a model that the service serves.
        lora: shape of the adapters; None for a model that is sampled from and not trained.
        url: the address of a server; None is the hosted service.
        tokenizer: folder of the model's tokenizer; None loads it through the service's client.
        timeout: seconds without any reply after which a wait ends with `Stopped`.
        say: shows a line of text to the user.
        thinking: False switches a chat model's thinking off if its chat template has such a switch.

    Raises:
        EngineError: the service does not serve this model, or not with adapters of this shape.
    """

    def __init__(
        self,
        model: str,
        lora: Lora | None,
        *,
        url: str | None,
        tokenizer: Path | None,
        timeout: float,
        say: Callable[[str], None],
        thinking: bool = True,
    ) -> None:
        if lora is not None and lora.alpha != ALPHA:
            reason = f"a Tinker service always trains with alpha {ALPHA:g}"
            remedy = f"give {ALPHA:g} (updates are scaled by alpha / rank)"
            raise EngineError("alpha", f"{lora.alpha:g}", reason, remedy)
        self.model, self._lora = model, lora
        self._service = Service(url, timeout, say)
        self._sdk = sdk()
        served = self._service.models
        if model not in served:
            remedy = _offer(list(served), base=lora is not None)
            raise EngineError("model", model, f"{self._service.url} does not serve it", remedy)
        self.meter = Meter()
        self._adapters: Adapters[Trainee] = Adapters()
        self._base: Any = None
        # A client is created first: this shows whether the service accepts the rank, and gives access to the tokenizer.
        client = self._samplers([None])[None] if lora is None else self._probe(lora)
        self.tokenizer = self._load_tokenizer(tokenizer, client, thinking=thinking)
        length = served[model].max_context_length
        if length is None:
            reason = f"{self._service.url} does not say how long a sequence may be"
            raise EngineError("model", model, reason, "give a model for which it does")
        self.context_length: int = length
        self.notes = (
            "Trained and sampled through the Tinker API: the service decides on precision, on how adapters are "
            "initialised from a seed, and whether gradients are clipped; equal runs may differ.",
        )

    @property
    def device(self) -> str:
        return f"Tinker service at {self._service.url}"

    def findings(self) -> Findings:
        # The service gives no hash of the base model's weights, so the name stands for them.
        return Findings(model=self.model, notes=self.notes)

    def create(self, adapters: Mapping[Adapter, int]) -> None:
        clients = self._service.wait("new adapters", [self._new_client(seed) for seed in adapters.values()])
        self._adapters.update({name: Trainee(client) for name, client in zip(adapters, clients, strict=True)})

    def copy(self, sources: Mapping[Adapter, Adapter]) -> None:
        self._store(list(dict.fromkeys(sources.values())))
        checkpoints = {name: self._adapters[source].checkpoint for name, source in sources.items()}
        make = self._service.client.create_training_client_from_state
        clients = self._service.wait("copies of adapters", [make(checkpoint) for checkpoint in checkpoints.values()])
        for (name, checkpoint), client in zip(checkpoints.items(), clients, strict=True):
            self._adapters[name] = Trainee(client, checkpoint=checkpoint)

    def forward_backward(self, batches: Mapping[Adapter, Batch]) -> Pending:
        flight = Flight(self._service, batches)
        for batch in batches.values():
            self._check_lengths(batch.sequences)
        self.meter.count({n: passes(batch) for n, batch in batches.items() if self._adapters[n].failed is None})
        for name in batches:
            flight.send(name, self._adapters[name])
        return flight

    def optim_step(self, adapters: Sequence[Adapter], adam: Adam) -> dict[Adapter, Failed]:
        parameters = self._sdk.AdamParams(
            learning_rate=adam.learning_rate,
            beta1=adam.beta1,
            beta2=adam.beta2,
            eps=adam.eps,
            weight_decay=0.0,
            grad_clip_norm=adam.clip_norm,
        )
        live = {name: self._adapters[name] for name in adapters if self._adapters[name].failed is None}
        for adapter in live.values():
            adapter.changed()
        steps = [adapter.client.optim_step(parameters) for adapter in live.values()]
        # Wait for the gradients first: if one of them fails, its error says more than that of the step.
        gradients = [adapter.gradient for adapter in live.values() if adapter.gradient is not None]
        answers = self._service.wait("a training step", [*gradients, *steps])[len(gradients) :]
        failures = {}
        for (name, adapter), answer in zip(live.items(), answers, strict=True):
            norms = [value for key, value in (answer.metrics or {}).items() if key.endswith("grad_norm")]
            if adapter.failed is None and not all(map(math.isfinite, norms)):
                adapter.failed = f"the norm of the gradient is {norms[0]}"
                failures[name] = Failed(adapter.failed)
        return failures

    def compute_logprobs(
        self, sequences: Mapping[Adapter | None, Sequence[Datum]]
    ) -> dict[Adapter | None, list[float]]:
        for batch in sequences.values():
            self._check_lengths(batch)
        self.meter.count({name: Usage(prefilled=token_count(batch)) for name, batch in sequences.items()})
        under = {n: b for n, b in sequences.items() if n is not None and b}
        forwards = [self._adapters[name].client.forward(datums(b), "cross_entropy") for name, b in under.items()]
        sums: dict[Adapter | None, list[float]] = {name: [] for name in sequences}
        for (name, batch), output in zip(under.items(), self._service.wait("log-probabilities", forwards), strict=True):
            sums[name] = weighted_sums(batch, token_logprobs(output)).tolist()
        if sequences.get(None):
            batch = sequences[None]
            inputs = [self._sdk.ModelInput.from_ints(list(one.tokens)) for one in batch]
            answers = self._service.wait(
                "log-probabilities", [self._samplers([None])[None].compute_logprobs(one) for one in inputs]
            )
            sums[None] = weighted_sums(batch, [torch.tensor(answer[1:]) for answer in answers]).tolist()
        return sums

    def sample(self, requests: Sequence[SampleRequest], listener: SampleListener | None = None) -> list[Sample]:
        longest = max((len(request.prompt) + request.max_tokens for request in requests), default=0)
        self._check_length(longest)
        samplers = self._samplers({request.adapter for request in requests})
        self.meter.count(sampling_usage(requests, [request.max_tokens for request in requests]))
        answers = [
            samplers[request.adapter].sample(
                self._sdk.ModelInput.from_ints(list(request.prompt)),
                1,
                self._sdk.SamplingParams(
                    max_tokens=request.max_tokens,
                    temperature=request.temperature,
                    seed=request.seed % SEEDS,
                    stop=self._stops(request),
                ),
            )
            for request in requests
        ]
        sequences = [answer.sequences[0] for answer in self._service.wait("samples", answers)]
        corrections: dict[Adapter | None, Usage] = {request.adapter: Usage() for request in requests}
        for request, sequence in zip(requests, sequences, strict=True):
            corrections[request.adapter].sampled += len(sequence.tokens) - request.max_tokens
        self.meter.count(corrections)
        for number, sequence in enumerate(sequences if listener is not None else ()):
            assert listener is not None
            listener(number, tuple(sequence.tokens))
        return [self._sample(request, sequence) for request, sequence in zip(requests, sequences, strict=True)]

    def save(self, directories: Mapping[Adapter, Path]) -> None:
        self._store(list(directories))
        for name, directory in directories.items():
            adapter = self._adapters[name]
            directory.mkdir(parents=True, exist_ok=True)
            state = {"checkpoint": adapter.checkpoint, "model": self.model, "failed": adapter.failed}
            (directory / STATE).write_text(json.dumps(state, indent=2) + "\n")

    def load(self, directories: Mapping[Adapter, Path], *, optimizer: bool) -> None:
        states = {name: json.loads((directory / STATE).read_bytes()) for name, directory in directories.items()}
        make = (
            self._service.client.create_training_client_from_state_with_optimizer
            if optimizer
            else self._service.client.create_training_client_from_state
        )
        try:
            clients = self._service.wait("stored adapters", [make(state["checkpoint"]) for state in states.values()])
        except Refused as error:
            checkpoints = ", ".join(state["checkpoint"] for state in states.values())
            remedy = f"a checkpoint is stored for {RETENTION_DAYS} days, by the service that made it"
            raise EngineError("checkpoint", checkpoints, str(error), remedy) from error
        for (name, state), client in zip(states.items(), clients, strict=True):
            failed = state["failed"] if optimizer else None
            self._adapters[name] = Trainee(client, checkpoint=state["checkpoint"], failed=failed)

    def export(self, directories: Mapping[Adapter, Path]) -> None:
        names = [_unique(name, "export") for name in directories]
        answers = self._service.wait(
            "the adapters' archives",
            [
                self._adapters[adapter].client.save_weights_for_sampler(name, ttl_seconds=RETENTION)
                for adapter, name in zip(directories, names, strict=True)
            ],
        )
        for (adapter, directory), name, answer in zip(directories.items(), names, answers, strict=True):
            run = self._adapters[adapter].client.model_id
            try:
                archive = self._service.download(f"/api/v1/training_runs/{run}/checkpoints/{name}/archive")
                archives.write(directory, self.model, archives.unpack(archive))
            except (OSError, ValueError) as error:
                raise Stopped(
                    f"the adapter {adapter} could not be stored: {' '.join(str(error).split())}; the service stores "
                    f"it for {RETENTION_DAYS} days as {answer.path}, and a resumed run tries again"
                ) from error

    def fingerprint(self, adapter: Adapter) -> str:
        self._store([adapter])
        return hashlib.sha256(f"{self.model} {self._adapters[adapter].checkpoint}".encode()).hexdigest()

    def remove(self, adapters: Sequence[Adapter]) -> None:
        for name in adapters:
            del self._adapters[name]

    def _probe(self, lora: Lora) -> Any:
        """A training client, which shows whether the service accepts adapters of this shape."""
        try:
            (client,) = self._service.wait("a training client", [self._new_client(0)])
        except Refused as error:
            if "rank" not in str(error).lower():
                raise
            remedy = f"give a rank that the service accepts for {self.model}"
            raise EngineError("rank", lora.rank, str(error), remedy) from error
        return client

    def _new_client(self, seed: int) -> Answer[Any]:
        assert self._lora is not None
        # As in the local engine, the head has no adapter.
        client: Answer[Any] = self._service.client.create_lora_training_client(
            base_model=self.model, rank=self._lora.rank, seed=seed % SEEDS, train_unembed=False
        )
        return client

    def _load_tokenizer(self, folder: Path | None, client: Any, *, thinking: bool) -> HubTokenizer:
        if folder is not None:
            return load_tokenizer(str(folder), thinking=thinking)
        try:
            return HubTokenizer(self._service.call("the tokenizer", client.get_tokenizer), thinking=thinking)
        except Exception as error:  # transformers raises errors of nearly every type for what it cannot load
            reason = f"none is given, and the service's client cannot load one ({one_line(error)})"
            raise EngineError("tokenizer", None, reason, f"give the folder of {self.model}'s tokenizer") from error

    def _samplers(self, names: set[Adapter | None] | list[Adapter | None]) -> dict[Adapter | None, Any]:
        """A sampling client for each adapter's current weights; a snapshot of them is made only if there is none."""
        absent = [name for name in names if name is not None and self._adapters[name].sampler is None]
        snapshots = [self._adapters[name].client.save_weights_and_get_sampling_client() for name in absent]
        if None in names and self._base is None:
            base = self._service.client.create_sampling_client(base_model=self.model)
            (self._base,) = self._service.wait("the base model", [base])
        for name, sampler in zip(absent, self._service.wait("snapshots to sample from", snapshots), strict=True):
            self._adapters[name].sampler = sampler
        return {name: self._base if name is None else self._adapters[name].sampler for name in names}

    def _store(self, names: Sequence[Adapter]) -> None:
        """Have the service store the current state of these adapters, unless it already has."""
        absent = [name for name in names if self._adapters[name].checkpoint is None]
        states = [self._adapters[n].client.save_state(_unique(n, "state"), ttl_seconds=RETENTION) for n in absent]
        for name, answer in zip(absent, self._service.wait("the storing of states", states), strict=True):
            self._adapters[name].checkpoint = answer.path

    def _stops(self, request: SampleRequest) -> list[str] | list[int] | None:
        """The stop strings, or without any the model's end tokens, which not every service applies by itself."""
        return list(request.stop) if request.stop else sorted(self.tokenizer.eos) or None

    def _sample(self, request: SampleRequest, sequence: Any) -> Sample:
        """The response up to the first stop string or end token."""
        tokens = tuple(sequence.tokens)
        end = next((i for i, token in enumerate(tokens) if token in self.tokenizer.eos), None)
        text = self.tokenizer.decode(tokens[:end])
        stops = [at for stop in request.stop if (at := text.find(stop)) >= 0]
        at_end = end is not None or bool(stops) or sequence.stop_reason == "stop"
        tokens = tokens if end is None else tokens[: end + 1]
        return Sample(text[: min(stops, default=None)], tokens, "stop" if at_end else "length")

    def _check_lengths(self, sequences: Sequence[Datum]) -> None:
        self._check_length(max((len(sequence.tokens) for sequence in sequences), default=0))

    def _check_length(self, longest: int) -> None:
        if longest > self.context_length:
            limit = f"the {self.context_length} that {self._service.url} accepts for it"
            reason = f"a sequence of {longest} tokens is longer than {limit}"
            raise EngineError("model", self.model, reason, "give shorter prompts, or fewer tokens per response")


def _unique(name: Adapter, kind: str) -> str:
    """A new name for a checkpoint, because a service refuses a name that it has seen before."""
    return f"{re.sub(r'[^A-Za-z0-9]+', '-', name)}-{kind}-{uuid.uuid4().hex[:12]}"


def _offer(served: list[str], *, base: bool) -> str:
    """Names the models that are served; with `base` only those whose name says that they are base models, if any."""
    names = sorted(name for name in served if "base" in name.lower()) if base else []
    return f"the base models it serves are {', '.join(names)}" if names else f"it serves {', '.join(sorted(served))}"


def construct(spec: EngineSpec) -> TinkerEngine:
    """The engine of a run.

    Raises:
        EngineError: as `TinkerEngine`.
    """
    return TinkerEngine(
        spec.model,
        spec.lora,
        url=spec.url,
        tokenizer=spec.tokenizer,
        timeout=spec.timeout,
        thinking=spec.thinking,
        say=spec.say,
    )
