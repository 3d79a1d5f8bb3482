"""The Tinker engine: the same verbs, done by a service that speaks the Tinker API.

One LoRA training client an adapter. Requests of all adapters are in flight together; an adapter's own run in the order
in which they were sent, so its optimizer step is on its way before its gradient is. What the service keeps for us
(training state, sampler snapshots) is named by us once and lives for `KEPT`.
"""

import hashlib
import json
import re
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cai_base.engines import (
    Adam,
    Adapter,
    Batch,
    Failed,
    LinearLoss,
    Lora,
    LossValue,
    Outcome,
    Pending,
    Sample,
    SampleRequest,
    Sequence,
    Step,
    Usage,
)
from cai_base.engines.local.model import HubTokenizer
from cai_base.engines.tinker import adapters as archives
from cai_base.engines.tinker.service import Answer, Refused, Service, sdk
from cai_base.errors import Stopped, UserError

ALPHA = 32.0
"""The service's own LoRA alpha, which no request can change (thinkingmachines.ai/blog/lora)."""
KEPT_DAYS = 30
KEPT = KEPT_DAYS * 24 * 3600
"""Seconds that the service keeps a checkpoint."""
SEEDS = 1 << 31
"""Seeds are sent below this: servers differ in how many bits they take."""
STATE = "tinker.json"


@dataclass(slots=True)
class _Adapter:
    """One adapter: its client, where its present weights are kept and sampled from, and why it failed."""

    client: Any
    kept: str | None = None
    sampler: Any = None
    sent: Answer[Any] | None = None
    failed: str | None = None

    def changed(self) -> None:
        """Its weights are about to change."""
        self.kept = self.sampler = None


class _Guarded:
    """A phase's loss as the SDK calls it. A loss that is not finite becomes a zero gradient and a reason."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self.value: LossValue | None = None

    def __call__(self, data: list[Any], logprobs: list[Tensor]) -> tuple[Tensor, dict[str, float]]:
        self.value = self._batch.loss(_sums(self._batch.sequences, logprobs))
        if torch.isfinite(self.value.loss):
            return self.value.loss, {}
        return sum((one * 0).sum() for one in logprobs), {}  # type: ignore[return-value]  # a raise would end the client


class TinkerEngine:
    """See `cai_base.engines.Engine` for what each verb means.

    Args:
        model: a base model's name, as the service has it.
        lora: shape of the adapters.
        url: of a server of one's own; None is the hosted service.
        tokenizer: folder of the model's tokenizer; None asks the service's client for it.
        timeout: seconds without any answer after which a wait is given up.
        say: shows a line to whoever waits.

    Raises:
        UserError: the service cannot be used with this model and this shape; the message says what would be right.
    """

    def __init__(
        self,
        model: str,
        lora: Lora,
        *,
        url: str | None,
        tokenizer: Path | None,
        timeout: float,
        say: Callable[[str], None],
    ) -> None:
        if lora.alpha != ALPHA:
            raise UserError(
                f"--lora.alpha {lora.alpha:g}: a Tinker service trains with alpha {ALPHA:g} and takes no other; give "
                f"--lora.alpha {ALPHA:g} (updates are scaled by alpha / rank)"
            )
        self.model, self._lora = model, lora
        self._service = Service(url, timeout, say)
        self._sdk = sdk()
        served = self._service.models
        if model not in served:
            raise UserError(f"--model {model}: {self._service.url} does not serve it; {_offer(list(served))}")
        self.usage: dict[Adapter | None, Usage] = defaultdict(Usage)
        self._adapters: dict[Adapter, _Adapter] = {}
        self._base: Any = None
        # One client before any work: it shows whether the service takes this rank, and has the tokenizer.
        try:
            (probe,) = self._service.wait("a training client", [self._new_client(0)])
        except Refused as error:
            if "rank" not in str(error).lower():
                raise
            raise UserError(
                f"--lora.rank {lora.rank}: {error}; give a rank that the service takes for {model}"
            ) from error
        self.tokenizer = HubTokenizer(*self._load_tokenizer(tokenizer, probe))
        length = served[model].max_context_length
        if length is None:
            raise UserError(f"--model {model}: {self._service.url} does not say how long a sequence may be")
        self.context_length: int = length
        self.notes = (
            "Trained and sampled through the Tinker API: the service decides on precision, on how adapters are "
            "initialised from a seed, and whether gradients are clipped; equal runs may differ.",
        )

    def findings(self) -> dict[str, Any]:
        # The service does not say what its base model's weights are; their name stands for them.
        return {"model": self.model, "notes": list(self.notes)}

    def create(self, adapters: Mapping[Adapter, int]) -> None:
        clients = self._service.wait("new adapters", [self._new_client(seed) for seed in adapters.values()])
        self._adapters.update({name: _Adapter(client) for name, client in zip(adapters, clients, strict=True)})

    def forward_backward(self, batches: Mapping[Adapter, Batch]) -> Pending:
        flight = _Flight(self._service, batches, self.usage)
        for name, batch in batches.items():
            self._check_lengths(batch.sequences)
            adapter = self._adapters[name]
            flight.send(name, adapter)
        return flight

    def optim_step(self, adapters: Seq[Adapter], adam: Adam) -> dict[Adapter, Failed]:
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
        # The gradients are waited for too, and first: where one of them fails, its own error says more than the step's.
        gradients = [adapter.sent for adapter in live.values() if adapter.sent is not None]
        answers = self._service.wait("a training step", [*gradients, *steps])[len(gradients) :]
        broken = {}
        for (name, adapter), answer in zip(live.items(), answers, strict=True):
            norms = [value for key, value in (answer.metrics or {}).items() if key.endswith("grad_norm")]
            if adapter.failed is None and not all(map(_finite, norms)):
                adapter.failed = f"the norm of the gradient is {norms[0]}"
                broken[name] = Failed(adapter.failed)
        return broken

    def compute_logprobs(self, sequences: Mapping[Adapter | None, Seq[Sequence]]) -> dict[Adapter | None, list[float]]:
        for asked_under, batch in sequences.items():
            self._check_lengths(batch)
            self.usage[asked_under].prefilled += _tokens(batch)
        under = {n: b for n, b in sequences.items() if n is not None and b}
        asked = [self._adapters[name].client.forward(_data(b), "cross_entropy") for name, b in under.items()]
        found: dict[Adapter | None, list[float]] = {name: [] for name in sequences}
        for (name, batch), output in zip(under.items(), self._service.wait("log-probabilities", asked), strict=True):
            found[name] = _sums(batch, _logprobs(output)).tolist()
        if sequences.get(None):
            batch = sequences[None]
            inputs = [self._sdk.ModelInput.from_ints(list(one.tokens)) for one in batch]
            answers = self._service.wait(
                "log-probabilities", [self._samplers([None])[None].compute_logprobs(one) for one in inputs]
            )
            found[None] = _sums(batch, [torch.tensor(answer[1:]) for answer in answers]).tolist()
        return found

    def sample(self, requests: Seq[SampleRequest]) -> list[Sample]:
        longest = max((len(request.prompt) + request.max_tokens for request in requests), default=0)
        self._check_length(longest)
        samplers = self._samplers({request.adapter for request in requests})
        asked = [
            samplers[request.adapter].sample(
                self._sdk.ModelInput.from_ints(list(request.prompt)),
                1,
                self._sdk.SamplingParams(
                    max_tokens=request.max_tokens,
                    temperature=request.temperature,
                    seed=request.seed % SEEDS,
                    stop=list(request.stop) or None,
                ),
            )
            for request in requests
        ]
        answers = self._service.wait("samples", asked)
        for request, answer in zip(requests, answers, strict=True):
            drawn = len(answer.sequences[0].tokens)
            self.usage[request.adapter].add(Usage(prefilled=len(request.prompt), sampled=drawn))
        return [self._sample(request, answer.sequences[0]) for request, answer in zip(requests, answers, strict=True)]

    def save(self, directories: Mapping[Adapter, Path]) -> None:
        self._keep(directories)
        for name, directory in directories.items():
            adapter = self._adapters[name]
            directory.mkdir(parents=True, exist_ok=True)
            state = {"checkpoint": adapter.kept, "model": self.model, "failed": adapter.failed}
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
            kept = ", ".join(state["checkpoint"] for state in states.values())
            raise UserError(
                f"{error}; a checkpoint is kept for {KEPT_DAYS} days, by the service that it was made on: {kept}"
            ) from error
        for (name, state), client in zip(states.items(), clients, strict=True):
            failed = state["failed"] if optimizer else None
            self._adapters[name] = _Adapter(client, kept=state["checkpoint"], failed=failed)

    def export(self, directories: Mapping[Adapter, Path]) -> None:
        names = [_unique(name, "export") for name in directories]
        answers = self._service.wait(
            "the adapters' archives",
            [
                self._adapters[adapter].client.save_weights_for_sampler(name, ttl_seconds=KEPT)
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
                    f"the adapter {adapter} could not be stored: {' '.join(str(error).split())}; the service keeps it "
                    f"for {KEPT_DAYS} days as {answer.path}, and a resumed run tries again"
                ) from error

    def fingerprint(self, adapter: Adapter) -> str:
        self._keep([adapter])
        return hashlib.sha256(f"{self.model} {self._adapters[adapter].kept}".encode()).hexdigest()

    def remove(self, adapters: Seq[Adapter]) -> None:
        for name in adapters:
            del self._adapters[name]

    def _new_client(self, seed: int) -> Answer[Any]:
        # The head has no adapter in either engine.
        made: Answer[Any] = self._service.client.create_lora_training_client(
            base_model=self.model, rank=self._lora.rank, seed=seed % SEEDS, train_unembed=False
        )
        return made

    def _load_tokenizer(self, folder: Path | None, client: Any) -> tuple[Any, frozenset[int]]:
        """The tokenizer, and the tokens that end a text."""
        from transformers import AutoTokenizer

        try:
            if folder is None:
                tokenizer = self._service.call("the tokenizer", client.get_tokenizer)
            else:
                tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except Exception as error:  # transformers raises nearly everything for what is wrong in a folder
            what = (
                "not given, and the service's client cannot load one" if folder is None else f"{folder}: cannot be read"
            )
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"--tokenizer {what} ({reason}); give the folder of {self.model}'s tokenizer") from error
        end = tokenizer.eos_token_id
        return tokenizer, frozenset() if end is None else frozenset([int(end)])

    def _samplers(self, names: set[Adapter | None] | list[Adapter | None]) -> dict[Adapter | None, Any]:
        """What samples from each adapter's present weights; a snapshot is made once."""
        absent = [name for name in names if name is not None and self._adapters[name].sampler is None]
        asked = [self._adapters[name].client.save_weights_and_get_sampling_client() for name in absent]
        if None in names and self._base is None:
            base = self._service.client.create_sampling_client(base_model=self.model)
            (self._base,) = self._service.wait("the base model", [base])
        for name, sampler in zip(absent, self._service.wait("snapshots to sample from", asked), strict=True):
            self._adapters[name].sampler = sampler
        return {name: self._base if name is None else self._adapters[name].sampler for name in names}

    def _keep(self, names: Mapping[Adapter, Path] | Seq[Adapter]) -> None:
        """Have the service keep these adapters' present state, where it does not yet."""
        absent = [name for name in names if self._adapters[name].kept is None]
        asked = [self._adapters[n].client.save_state(_unique(n, "state"), ttl_seconds=KEPT) for n in absent]
        for name, answer in zip(absent, self._service.wait("the storing of states", asked), strict=True):
            self._adapters[name].kept = answer.path

    def _sample(self, request: SampleRequest, drawn: Any) -> Sample:
        """The response up to the first stop, or to the model's own end of text."""
        tokens = tuple(drawn.tokens)
        end = next((i for i, token in enumerate(tokens) if token in self.tokenizer.eos), None)
        text = self.tokenizer.decode(tokens[:end])
        stops = [at for stop in request.stop if (at := text.find(stop)) >= 0]
        ended = end is not None or bool(stops) or drawn.stop_reason == "stop"
        kept = tokens if end is None else tokens[: end + 1]
        return Sample(text[: min(stops, default=None)], kept, "stop" if ended else "length")

    def _check_lengths(self, sequences: Seq[Sequence]) -> None:
        self._check_length(max((len(sequence.tokens) for sequence in sequences), default=0))

    def _check_length(self, longest: int) -> None:
        if longest > self.context_length:
            raise UserError(
                f"--model {self.model}: a sequence of {longest} tokens is longer than the {self.context_length} that "
                f"{self._service.url} takes for it; give shorter prompts, or fewer tokens a response"
            )


class _Flight:
    """The outcomes of requests that are on their way."""

    def __init__(
        self, service: Service, batches: Mapping[Adapter, Batch], usage: Mapping[Adapter | None, Usage]
    ) -> None:
        self._service, self._batches, self._usage = service, batches, usage
        self._sent: dict[Adapter, tuple[_Adapter, _Guarded | None, Answer[Any]]] = {}
        self._failed: dict[Adapter, Outcome] = {}

    def send(self, name: Adapter, adapter: _Adapter) -> None:
        """Begin one adapter's forward and backward, unless it has failed."""
        if adapter.failed is not None:
            self._failed[name] = Failed(adapter.failed)
            return
        batch = self._batches[name]
        self._usage[name].trained += _tokens(batch.sequences)
        if isinstance(batch.loss, LinearLoss):  # the service's cross-entropy is this sum, in one pass instead of two
            guarded = None
            adapter.sent = adapter.client.forward_backward(_data(batch.sequences, batch.loss.divisor), "cross_entropy")
        else:
            self._usage[name].prefilled += _tokens(batch.sequences)  # the loss is computed here, between two passes
            guarded = _Guarded(batch)
            adapter.sent = adapter.client.forward_backward_custom(_data(batch.sequences), guarded)
        self._sent[name] = adapter, guarded, adapter.sent

    def result(self) -> dict[Adapter, Outcome]:
        answers = self._service.wait("gradients", [answer for _, _, answer in self._sent.values()])
        outcomes: dict[Adapter, Outcome] = {}
        for (name, (adapter, guarded, _)), output in zip(self._sent.items(), answers, strict=True):
            batch = self._batches[name]
            value = guarded.value if guarded else batch.loss(_sums(batch.sequences, _logprobs(output)))
            assert value is not None
            loss = float(value.loss.detach())
            if not _finite(loss):
                adapter.failed = f"the loss is {loss}"
            step = Step(loss, value.metrics, _tokens(batch.sequences))
            outcomes[name] = Failed(adapter.failed) if adapter.failed else step
        return {name: outcomes.get(name) or self._failed[name] for name in self._batches}


def _data(sequences: Seq[Sequence], divisor: float = 1.0) -> list[Any]:
    """Sequences as the API takes them: each position's token, the next one as its target, and that one's weight."""
    tinker = sdk()
    return [
        tinker.Datum(
            model_input=tinker.ModelInput.from_ints(list(one.tokens[:-1])),
            loss_fn_inputs={
                "target_tokens": list(one.tokens[1:]),
                "weights": [weight / divisor for weight in one.weights[1:]],
            },
        )
        for one in sequences
    ]


def _tokens(sequences: Seq[Sequence]) -> int:
    return sum(len(sequence.tokens) for sequence in sequences)


def _logprobs(output: Any) -> list[Tensor]:
    """Each sequence's log-probabilities, from its second token on."""
    return [one["logprobs"].to_torch() for one in output.loss_fn_outputs]


def _sums(sequences: Seq[Sequence], logprobs: Seq[Tensor]) -> Tensor:
    """Weighted sums `[sequences]`. What has no weight is left out, so that an infinity there is not a nan here."""
    sums = []
    for sequence, values in zip(sequences, logprobs, strict=True):
        weights = torch.tensor(sequence.weights[1:])
        sums.append((values[weights != 0] * weights[weights != 0]).sum())
    return torch.stack(sums)


def _unique(name: Adapter, kind: str) -> str:
    """A checkpoint's name, which no other has: a service refuses one that it has seen."""
    return f"{re.sub(r'[^A-Za-z0-9]+', '-', name)}-{kind}-{uuid.uuid4().hex[:12]}"


def _finite(value: float) -> bool:
    return bool(torch.isfinite(torch.tensor(value)))


def _offer(served: list[str]) -> str:
    """A sentence that names the base models among those that are served, or all where no name says so."""
    base = sorted(name for name in served if "base" in name.lower())
    return f"the base models it does are {', '.join(base)}" if base else f"it serves {', '.join(sorted(served))}"
