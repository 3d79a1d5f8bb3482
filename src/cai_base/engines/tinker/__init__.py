"""The Tinker engine: the same verbs, done by a service that speaks the Tinker API.

One LoRA training client an adapter. Requests of all adapters are in flight together; an adapter's own run in the order
in which they were sent, so its optimizer step is on its way before its gradient is. What the service keeps for us
(training state, sampler snapshots) is named by us once and lives for `KEPT`.
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
    Failed,
    Lora,
    Meter,
    Pending,
    Sample,
    SampleRequest,
    Usage,
    sampling_usage,
)
from cai_base.engines.local.model import HubTokenizer
from cai_base.engines.tinker import adapters as archives
from cai_base.engines.tinker.service import Answer, Refused, Service, sdk
from cai_base.engines.tinker.training import Flight, Trainee, datums, each_logprob, passes, token_count, weighted_sums
from cai_base.errors import Stopped, UserError

ALPHA = 32.0
"""The service's own LoRA alpha, which no request can change (thinkingmachines.ai/blog/lora)."""
KEPT_DAYS = 30
KEPT = KEPT_DAYS * 24 * 3600
"""Seconds that the service keeps a checkpoint."""
SEEDS = 1 << 31
"""Seeds are sent below this: servers differ in how many bits they take."""
STATE = "tinker.json"


class TinkerEngine:
    """See `cai_base.engines.Engine` for what each verb means.

    Args:
        model: a base model's name, as the service has it.
        lora: shape of the adapters; None for a model that is only asked, never trained.
        url: of a server of one's own; None is the hosted service.
        tokenizer: folder of the model's tokenizer; None asks the service's client for it.
        timeout: seconds without any answer after which a wait is given up.
        say: shows a line to whoever waits.
        flag: what named the model, for messages; its tokenizer is named by `--tokenizer`, another's by FLAG-tokenizer.

    Raises:
        UserError: the service cannot be used with this model and this shape; the message says what would be right.
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
        flag: str = "--model",
    ) -> None:
        if lora is not None and lora.alpha != ALPHA:
            raise UserError(
                f"--lora.alpha {lora.alpha:g}: a Tinker service trains with alpha {ALPHA:g} and takes no other; give "
                f"--lora.alpha {ALPHA:g} (updates are scaled by alpha / rank)"
            )
        self.model, self._lora, self._flag = model, lora, flag
        self._service = Service(url, timeout, say)
        self._sdk = sdk()
        served = self._service.models
        if model not in served:
            raise UserError(f"{flag} {model}: {self._service.url} does not serve it; {_offer(list(served), flag)}")
        self.meter = Meter()
        self._adapters: dict[Adapter, Trainee] = {}
        self._base: Any = None
        # One client before any work: it shows whether the service takes this rank, and has the tokenizer.
        client = self._samplers([None])[None] if lora is None else self._probe(lora)
        self.tokenizer = HubTokenizer(*self._load_tokenizer(tokenizer, client))
        length = served[model].max_context_length
        if length is None:
            raise UserError(f"{flag} {model}: {self._service.url} does not say how long a sequence may be")
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
        self._adapters.update({name: Trainee(client) for name, client in zip(adapters, clients, strict=True)})

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
        # The gradients are waited for too, and first: where one of them fails, its own error says more than the step's.
        gradients = [adapter.sent for adapter in live.values() if adapter.sent is not None]
        answers = self._service.wait("a training step", [*gradients, *steps])[len(gradients) :]
        broken = {}
        for (name, adapter), answer in zip(live.items(), answers, strict=True):
            norms = [value for key, value in (answer.metrics or {}).items() if key.endswith("grad_norm")]
            if adapter.failed is None and not all(map(math.isfinite, norms)):
                adapter.failed = f"the norm of the gradient is {norms[0]}"
                broken[name] = Failed(adapter.failed)
        return broken

    def compute_logprobs(
        self, sequences: Mapping[Adapter | None, Sequence[Datum]]
    ) -> dict[Adapter | None, list[float]]:
        for batch in sequences.values():
            self._check_lengths(batch)
        self.meter.count({name: Usage(prefilled=token_count(batch)) for name, batch in sequences.items()})
        under = {n: b for n, b in sequences.items() if n is not None and b}
        asked = [self._adapters[name].client.forward(datums(b), "cross_entropy") for name, b in under.items()]
        found: dict[Adapter | None, list[float]] = {name: [] for name in sequences}
        for (name, batch), output in zip(under.items(), self._service.wait("log-probabilities", asked), strict=True):
            found[name] = weighted_sums(batch, each_logprob(output)).tolist()
        if sequences.get(None):
            batch = sequences[None]
            inputs = [self._sdk.ModelInput.from_ints(list(one.tokens)) for one in batch]
            answers = self._service.wait(
                "log-probabilities", [self._samplers([None])[None].compute_logprobs(one) for one in inputs]
            )
            found[None] = weighted_sums(batch, [torch.tensor(answer[1:]) for answer in answers]).tolist()
        return found

    def sample(self, requests: Sequence[SampleRequest]) -> list[Sample]:
        longest = max((len(request.prompt) + request.max_tokens for request in requests), default=0)
        self._check_length(longest)
        samplers = self._samplers({request.adapter for request in requests})
        self.meter.count(sampling_usage(requests, [request.max_tokens for request in requests]))
        asked = [
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
        answers = self._service.wait("samples", asked)
        drawn = [answer.sequences[0] for answer in answers]
        not_drawn: dict[Adapter | None, Usage] = {request.adapter: Usage() for request in requests}
        for request, one in zip(requests, drawn, strict=True):
            not_drawn[request.adapter].sampled += len(one.tokens) - request.max_tokens
        self.meter.count(not_drawn)
        return [self._sample(request, one) for request, one in zip(requests, drawn, strict=True)]

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
            self._adapters[name] = Trainee(client, kept=state["checkpoint"], failed=failed)

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

    def remove(self, adapters: Sequence[Adapter]) -> None:
        for name in adapters:
            del self._adapters[name]

    def _probe(self, lora: Lora) -> Any:
        """A training client, if the service makes one of this shape."""
        try:
            (client,) = self._service.wait("a training client", [self._new_client(0)])
        except Refused as error:
            if "rank" not in str(error).lower():
                raise
            raise UserError(
                f"--lora.rank {lora.rank}: {error}; give a rank that the service takes for {self.model}"
            ) from error
        return client

    def _new_client(self, seed: int) -> Answer[Any]:
        assert self._lora is not None
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
            flag = "--tokenizer" if self._flag == "--model" else f"{self._flag}-tokenizer"
            what = (
                "is not given, and the service's client cannot load one"
                if folder is None
                else f"{folder}: cannot be read"
            )
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"{flag} {what} ({reason}); give the folder of {self.model}'s tokenizer") from error
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

    def _keep(self, names: Mapping[Adapter, Path] | Sequence[Adapter]) -> None:
        """Have the service keep these adapters' present state, where it does not yet."""
        absent = [name for name in names if self._adapters[name].kept is None]
        asked = [self._adapters[n].client.save_state(_unique(n, "state"), ttl_seconds=KEPT) for n in absent]
        for name, answer in zip(absent, self._service.wait("the storing of states", asked), strict=True):
            self._adapters[name].kept = answer.path

    def _stops(self, request: SampleRequest) -> list[str] | list[int] | None:
        """What ends a response: where no text does, the model's own end, which not every service knows by itself."""
        return list(request.stop) if request.stop else sorted(self.tokenizer.eos) or None

    def _sample(self, request: SampleRequest, drawn: Any) -> Sample:
        """The response up to the first stop, or to the model's own end of text."""
        tokens = tuple(drawn.tokens)
        end = next((i for i, token in enumerate(tokens) if token in self.tokenizer.eos), None)
        text = self.tokenizer.decode(tokens[:end])
        stops = [at for stop in request.stop if (at := text.find(stop)) >= 0]
        ended = end is not None or bool(stops) or drawn.stop_reason == "stop"
        kept = tokens if end is None else tokens[: end + 1]
        return Sample(text[: min(stops, default=None)], kept, "stop" if ended else "length")

    def _check_lengths(self, sequences: Sequence[Datum]) -> None:
        self._check_length(max((len(sequence.tokens) for sequence in sequences), default=0))

    def _check_length(self, longest: int) -> None:
        if longest > self.context_length:
            raise UserError(
                f"{self._flag} {self.model}: a sequence of {longest} tokens is longer than the {self.context_length} "
                f"that {self._service.url} takes for it; give shorter prompts, or fewer tokens a response"
            )


def _unique(name: Adapter, kind: str) -> str:
    """A checkpoint's name, which no other has: a service refuses one that it has seen."""
    return f"{re.sub(r'[^A-Za-z0-9]+', '-', name)}-{kind}-{uuid.uuid4().hex[:12]}"


def _offer(served: list[str], flag: str) -> str:
    """A sentence that names the base models among those that are served, or all: where no name says so, or one asks."""
    base = sorted(name for name in served if "base" in name.lower()) if flag == "--model" else []
    return f"the base models it does are {', '.join(base)}" if base else f"it serves {', '.join(sorted(served))}"
