"""Contenders in generation: the same `revise` and `answer` of the package, over three ways to draw responses.

The engine draws all seeds' prompts together. `OneAtATime` is the same engine with one request in a batch, as the
original experiment asked its service. `Generate` is `transformers.generate` as a good user would call it: all prompts
of one adapter in one batch, padded on the left. Lengths are fixed (nothing here ends a random model's text early), so
that all draw the same number of tokens.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
from workload import Workload, with_end

from cai_base import RunSettings, default_settings, revise
from cai_base.engines import Datum, Sample, SampleRequest
from cai_base.engines.local import LocalEngine
from cai_base.evaluation.tasks import Query, sample_answers


class OneAtATime:
    """An engine that draws one response after the other."""

    def __init__(self, engine: LocalEngine) -> None:
        self.engine, self.tokenizer = engine, engine.tokenizer

    def sample(self, requests: Sequence[SampleRequest], listener: object = None) -> list[Sample]:
        """One response a request, in order; nobody listens."""
        return [self.engine.sample([request])[0] for request in requests]


class Generate:
    """`transformers.generate` on a PEFT model, one adapter's requests in one batch.

    Args:
        folder: of the model.
        adapter: PEFT folder of the one adapter.
        device: `cpu` or `cuda`.
        tokenizer: the engine's, so that texts become the same tokens.
        model: take this PEFT model in place of loading one.
    """

    def __init__(
        self, folder: Path, adapter: Path | None, device: str, tokenizer: Any, model: PeftModel | None = None
    ) -> None:
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        if model is None and adapter is not None:
            base = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device)
            model = PeftModel.from_pretrained(base, adapter)
        assert model is not None
        self.model, self.tokenizer = model.eval(), tokenizer
        self._padding = with_end(folder).pad_token_id or 0

    def sample(self, requests: Sequence[SampleRequest], listener: object = None) -> list[Sample]:
        """One response a request, in order, all of the first one's temperature; the batch ends with its longest."""
        end = max(len(request.prompt) for request in requests)
        ids = torch.full((len(requests), end), self._padding)
        present = torch.zeros_like(ids)
        for i, request in enumerate(requests):
            ids[i, end - len(request.prompt) :] = torch.tensor(request.prompt)
            present[i, end - len(request.prompt) :] = 1
        first, device = requests[0], self.model.device
        most = max(request.max_tokens for request in requests)
        warm: dict[str, Any] = {"do_sample": False}
        if first.temperature > 0:
            warm = {"do_sample": True, "temperature": first.temperature, "top_k": 0, "top_p": 1.0}
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            out = self.model.generate(
                input_ids=ids.to(device),
                attention_mask=present.to(device),
                max_new_tokens=most,
                min_new_tokens=most,
                pad_token_id=self._padding,
                **warm,
            )
        rows = zip(requests, out[:, end:].tolist(), strict=True)
        drawn = [tokens[: request.max_tokens] for request, tokens in rows]
        return [Sample(self.tokenizer.decode(tokens).strip(), tuple(tokens), "length") for tokens in drawn]


def settings_of(response: int, critique: int, rounds: int, temperature: float) -> RunSettings:
    """A run's settings with these lengths."""
    return default_settings(
        "english",
        judge="none",
        revision={
            "response_tokens": response,
            "critique_tokens": critique,
            "rounds": rounds,
            "temperature": temperature,
        },
        evaluation={"response_tokens": response, "temperature": temperature},
    )


def chains(
    engine: Any, work: Workload, settings: RunSettings, adapters: Sequence[str], prompts: int
) -> list[list[str]]:
    """Revise the first `prompts` prompts under these adapters; every chain's texts."""
    seeds = {adapter: seed for seed, adapter in enumerate(adapters)}
    by_adapter = revise(
        engine, work.dialogue, work.inputs.constitution, (), settings.revision, seeds, work.inputs.prompts[:prompts]
    )
    return [
        [one.original, *(text for r in one.rounds for text in (r.critique, r.revision))]
        for of_one in by_adapter.values()
        for one in of_one
    ]


def answers(engine: Any, work: Workload, settings: RunSettings, adapters: Sequence[str], prompts: int) -> list[str]:
    """Answer the first `prompts` prompts under these adapters, as an evaluation does."""
    queries = [Query(one.text, ("evaluation", one.id, "answer")) for one in work.inputs.prompts[:prompts]]
    samples = sample_answers(engine, work.dialogue, settings.evaluation, queries, dict(enumerate(adapters)))
    return [sample.text for of_seed in samples.values() for sample in of_seed]


def comparisons(engine: LocalEngine, data: Sequence[Datum], adapters: Sequence[str]) -> list[float]:
    """The log-probability of every answer under every adapter, all in one call."""
    values = engine.compute_logprobs(dict.fromkeys(adapters, data))
    return [value for adapter in adapters for value in values[adapter]]


def comparisons_in_turn(engine: LocalEngine, data: Sequence[Datum], adapters: Sequence[str]) -> list[float]:
    """The same, one answer after the other."""
    return [engine.compute_logprobs({adapter: [one]})[adapter][0] for adapter in adapters for one in data]
