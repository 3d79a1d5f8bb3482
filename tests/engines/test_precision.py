"""bfloat16 on a CPU: the same model with rounded activations, adapters in float32, and a word about what is faster."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from batches import gradient, nll, pairs
from checkpoints import LENGTH, LORA

from cai_base.engines import Batch, EngineSpec, SampleRequest
from cai_base.engines.local import LocalEngine, construct, precision

CPU = torch.device("cpu")


@pytest.fixture
def both(folder: Callable[[str], str]) -> tuple[LocalEngine, LocalEngine]:
    """The same model in float32 and in bfloat16, each with the same adapter."""
    made = [
        LocalEngine(folder("llama"), LORA, sequence_length=LENGTH, device="cpu", dtype=dtype)
        for dtype in (None, torch.bfloat16)
    ]
    for engine in made:
        engine.create({"a": 0})
    return made[0], made[1]


def test_the_rounded_model_computes_the_same_log_probabilities_and_gradients_but_for_rounding(
    both: tuple[LocalEngine, LocalEngine],
) -> None:
    exact, rounded = both
    assert rounded.packed
    batch = pairs(0, 4)
    per_token = [
        abs(a - b) / sum(weight != 0 for weight in one.weights)
        for one, a, b in zip(
            batch, exact.compute_logprobs({"a": batch})["a"], rounded.compute_logprobs({"a": batch})["a"], strict=True
        )
    ]
    assert 0 < max(per_token) < 0.05  # nats
    for engine in both:
        engine.forward_backward({"a": Batch(batch, nll)}).result()
    mine, other = gradient(exact, "a"), gradient(rounded, "a")
    assert other.dtype == torch.float32
    assert torch.cosine_similarity(mine, other, dim=0) > 0.99


def test_its_answers_depend_on_no_other_and_its_notes_say_that_it_is_rounded(
    both: tuple[LocalEngine, LocalEngine],
) -> None:
    exact, rounded = both
    request = SampleRequest("a", (0, 40, 41, 42), 12, 1.0, (), 5)
    assert rounded.sample([request])[0] == rounded.sample([request, request])[1]
    assert rounded.notes == ("Computed in bfloat16 on a CPU",)
    assert exact.notes == ()


@pytest.mark.parametrize(
    ("times", "dtype", "says"),
    [
        (4.0, torch.float32, "4.0 times as fast in bfloat16 as in float32. A run in bfloat16"),
        (1.2, torch.float32, None),
        (0.01, torch.float32, None),
        (0.01, torch.bfloat16, "100.0 times as fast in float32 as in bfloat16. A run in float32"),
        (4.0, torch.bfloat16, None),
    ],
)
def test_a_run_says_which_precision_this_processor_is_faster_in(
    monkeypatch: pytest.MonkeyPatch, folder: Callable[[str], str], times: float, dtype: torch.dtype, says: str | None
) -> None:
    assert precision.advice(CPU, dtype, 2_600_000) is None  # a small model gains nothing
    monkeypatch.setattr(precision, "gain", lambda: times)
    monkeypatch.setattr(precision, "LARGE", 1000)
    said: list[str] = []
    name = str(dtype).removeprefix("torch.")
    construct(EngineSpec(folder("llama"), "mine", LENGTH, LORA, dtype=name, say=said.append))
    assert len(said) == (says is not None)
    assert says is None or says in said[0]


def test_the_measurement_is_of_this_processor() -> None:
    assert 1e-4 < precision.gain() < 1e3


def test_an_adapter_trained_in_one_precision_is_loaded_in_the_other(
    both: tuple[LocalEngine, LocalEngine], tmp_path: Path
) -> None:
    exact, rounded = both
    rounded.export({"a": tmp_path / "adapter"})
    exact.load({"a": tmp_path / "adapter"}, optimizer=False)
    batch = pairs(1, 2)
    again, before = exact.compute_logprobs({"a": batch})["a"], rounded.compute_logprobs({"a": batch})["a"]
    assert again == pytest.approx(before, rel=0.02)
