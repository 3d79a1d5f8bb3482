"""The engine's test matrix on the device at hand, in its precision (bf16 on a GPU), on the embedded model.

Each check is a figure and its limit; the limits are those of the precision. What is compared: packed with padded,
several adapters together with each alone, greedy answers with `transformers.generate`, LoRA's gradient with PEFT's,
losses with TRL's.
"""

import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from generation import Generate
from peft import PeftModel
from torch import Tensor
from training import APART, BATCH, BatchOf, dpo_batches, trajectory
from transformers import AutoModelForCausalLM
from workload import TextPair

from cai_base import Dialogue, Lora, embedded, nll_loss, packaged, trained_datum
from cai_base.dialogue import END
from cai_base.engines import Batch, Datum, SampleRequest
from cai_base.engines.local import LocalEngine
from cai_base.engines.local.lora import views
from cai_base.method.dpo import TokenPair

LIMITS = {
    "cuda": {"logprob": 0.05, "loss": 0.03, "cosine": 0.99, "logit": 0.75, "trajectory": 0.05},
    "cpu": {"logprob": 1e-4, "loss": 1e-4, "cosine": 0.9999, "logit": 1e-3, "trajectory": 5e-3},
}
"""By how much log-probabilities (mean per token, nats), losses (relative), gradients (cosine) and logits may differ."""
ADAPTERS = ("a", "b", "c")


def checks(device: str, work: Path) -> dict[str, dict[str, Any]]:
    """Every check: its figures, and whether it passed. One that raises has not, and the others are made."""
    limits, folder = LIMITS[device], embedded.weights()
    inputs = packaged("world", first=10)
    dialogue = Dialogue(inputs.few_shot, inputs.critique_examples)
    engine = LocalEngine(str(folder), Lora(16, 16), sequence_length=512, device=device)
    answers = [one.response for one in inputs.examples]
    texts = [
        TextPair(dialogue.question(p.text), f" {answers[i % 3]}{END}", f" {answers[3 + i % 3]}{END}")
        for i, p in enumerate(inputs.prompts)
    ]
    tokens = [
        TokenPair(
            p.id,
            trained_datum(engine.tokenizer, dialogue, p.text, answers[i % 3]),
            trained_datum(engine.tokenizer, dialogue, p.text, answers[3 + i % 3]),
        )
        for i, p in enumerate(inputs.prompts)
    ]
    data = [datum for pair in tokens for datum in (pair.chosen, pair.rejected)]
    examples = [(dialogue.question(e.prompt), f" {e.response}{END}") for e in inputs.examples]
    engine.create({name: i for i, name in enumerate(ADAPTERS)})
    for name in ADAPTERS:
        _stir(engine, name)
        engine.export({name: work / name})
    every: dict[str, Callable[[], dict[str, Any]]] = {
        "packs": lambda: _passed({"packed": engine.packed}, engine.packed),
        "packed against padded": lambda: _padded(engine, folder, work, device, data, limits),
        "together against alone": lambda: _alone(engine, data, limits),
        "three train together as alone": lambda: _train_alone(engine, dpo_batches(engine, tokens, ADAPTERS), limits),
        "LoRA's gradient against PEFT's": lambda: _peft_gradient(engine, folder, work / "a", data[: 2 * BATCH], limits),
        "greedy against transformers.generate": lambda: _greedy(engine, dialogue, folder, work, device, limits),
    }
    for title in ("dpo", "sft", "packed sft"):
        every[f"losses of {title} against TRL's"] = lambda title=title: _trl(  # type: ignore[misc]
            trajectory(title, engine, folder, work, examples, texts), limits
        )
    out: dict[str, dict[str, Any]] = {}
    for title, check in every.items():
        try:
            out[title] = check()
        except Exception:  # as said above
            out[title] = {"passed": False, "failed": traceback.format_exc()}
    return out


def _padded(
    engine: LocalEngine, folder: Path, work: Path, device: str, data: Sequence[Datum], limits: dict[str, float]
) -> dict[str, Any]:
    padded = LocalEngine(str(folder), Lora(16, 16), sequence_length=512, device=device, pack=False)
    padded.load({name: work / name for name in ADAPTERS}, optimizer=False)
    return _logprobs(engine, data, padded.compute_logprobs(dict.fromkeys(ADAPTERS, data)), limits)


def _alone(engine: LocalEngine, data: Sequence[Datum], limits: dict[str, float]) -> dict[str, Any]:
    return _logprobs(engine, data, {name: engine.compute_logprobs({name: data})[name] for name in ADAPTERS}, limits)


def _logprobs(
    engine: LocalEngine, data: Sequence[Datum], other: Mapping[str, Sequence[float]], limits: dict[str, float]
) -> dict[str, Any]:
    """All adapters' log-probabilities in one call against others."""
    together, trained = engine.compute_logprobs(dict.fromkeys(ADAPTERS, data)), sum(sum(one.weights) for one in data)
    worst = max(_distance(together[name], other[name], trained) for name in ADAPTERS)
    return _passed({"nats per token": worst}, worst <= limits["logprob"])


def _train_alone(engine: LocalEngine, batch: BatchOf, limits: dict[str, float]) -> dict[str, Any]:
    three = engine.forward_backward({name: batch(name, 0) for name in ADAPTERS}).result()
    gradients = {name: _take_gradient(engine, name) for name in ADAPTERS}
    cosines, losses = [], []
    for name in ADAPTERS:
        one = engine.forward_backward({name: batch(name, 0)}).result()[name]
        cosines.append(_cosine(gradients[name], _take_gradient(engine, name)))
        losses.append(abs(three[name].loss - one.loss) / abs(one.loss))  # type: ignore[union-attr]
    return _passed(
        {"cosine of gradients": min(cosines), "relative difference of losses": max(losses)},
        min(cosines) >= limits["cosine"] and max(losses) <= limits["loss"],
    )


def _trl(made: dict[str, Any], limits: dict[str, float]) -> dict[str, Any]:
    return _passed(made, made[APART] <= limits["trajectory"])


def _passed(figures: dict[str, Any], passed: bool) -> dict[str, Any]:
    return {**figures, "passed": bool(passed)}


def _stir(engine: LocalEngine, name: str) -> None:
    """Give an adapter random matrices, B too, so that it differs from the base model and from the others."""
    parameters = engine._bank.adapters[name].parameters
    generator = torch.Generator().manual_seed(sum(name.encode()))
    parameters += (0.02 * torch.randn(parameters.shape, generator=generator)).to(parameters.device)


def _distance(one: Sequence[float], other: Sequence[float], tokens: float) -> float:
    """The mean difference in nats per token."""
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / tokens


def _take_gradient(engine: LocalEngine, name: str) -> Tensor:
    gradient = engine._bank.adapters[name].gradient
    assert gradient is not None
    engine._bank.adapters[name].gradient = None
    return gradient


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=0))


def _nll(data: Sequence[Datum]) -> Batch:
    return Batch(data, nll_loss(data))


def _peft_gradient(
    engine: LocalEngine, folder: Path, adapter: Path, data: Sequence[Datum], limits: dict[str, float]
) -> dict[str, Any]:
    device, dtype = engine._model.device, engine._model.dtype
    ours = engine.forward_backward({"a": _nll(data)}).result()["a"]
    gradient = _take_gradient(engine, "a")
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device)
    model = PeftModel.from_pretrained(base, adapter, is_trainable=True)
    longest = max(len(one.tokens) for one in data)
    ids = torch.zeros(len(data), longest, dtype=torch.long)
    labels, present = torch.full_like(ids, -100), torch.zeros_like(ids)
    for i, one in enumerate(data):
        n = len(one.tokens)
        ids[i, :n], present[i, :n] = torch.tensor(one.tokens), 1
        labels[i, :n] = torch.tensor([t if w else -100 for t, w in zip(one.tokens, one.weights, strict=True)])
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        loss = model(input_ids=ids.to(device), attention_mask=present.to(device), labels=labels.to(device)).loss
    loss.backward()
    named = {name.replace(".default", ""): p.grad for name, p in model.named_parameters() if p.grad is not None}
    flat = torch.zeros(1, engine._bank.size, device=device)
    for place, (a, b) in zip(engine._bank.places, views(engine._bank.places, flat), strict=True):
        a[0] = named[f"base_model.model.{place.name}.lora_A.weight"].T
        b[0] = named[f"base_model.model.{place.name}.lora_B.weight"].T
    cosine = _cosine(gradient, flat[0])
    difference = abs(ours.loss - loss.item()) / abs(loss.item())  # type: ignore[union-attr]
    figures = {"cosine": cosine, "relative difference of losses": difference}
    return _passed(figures, cosine >= limits["cosine"] and difference <= limits["loss"])


def _greedy(
    engine: LocalEngine, dialogue: Dialogue, folder: Path, work: Path, device: str, limits: dict[str, float]
) -> dict[str, Any]:
    """How many greedy answers are equal, and by how much our tokens miss the largest logit of transformers' forward.

    In bf16 two tokens often have the same logit, so equal answers cannot be asked of it; that no token of ours is less
    likely than the best one, but for rounding, can.
    """
    prompts = packaged("world", first=16).prompts
    requests = [
        SampleRequest("a", dialogue.question_tokens(engine.tokenizer, one.text), 24, 0.0, (), i)
        for i, one in enumerate(prompts)
    ]
    ours = engine.sample(requests)
    peer = Generate(folder, work / "a", device, engine.tokenizer)
    theirs = peer.sample(requests)
    shortfall = 0.0
    for request, sample in zip(requests, ours, strict=True):
        ids = torch.tensor([[*request.prompt, *sample.tokens]], device=device)
        autocast = torch.autocast(device, torch.bfloat16, enabled=device == "cuda")
        with torch.inference_mode(), autocast:
            logits = peer.model(input_ids=ids).logits[0, len(request.prompt) - 1 : -1].float()
        drawn = logits.gather(1, ids[0, len(request.prompt) :, None])[:, 0]
        shortfall = max(shortfall, float((logits.amax(dim=1) - drawn).max()))
    equal = sum(a.tokens[: len(b.tokens)] == b.tokens[: len(a.tokens)] for a, b in zip(ours, theirs, strict=True))
    return _passed({"equal": f"{equal} of {len(ours)}", "largest shortfall": shortfall}, shortfall <= limits["logit"])
