"""Recorded passes of the decoder. No GPU is at hand: its recordings are imitated, fixed buffers and all."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from batches import gradient, nll, pairs, stir
from torch import Tensor

from cai_base.engines import Batch, Step
from cai_base.engines.local import LocalEngine
from cai_base.engines.local.graphs import Graphs

Make = Callable[..., LocalEngine]


def record(work: Callable[..., Tensor], sample: tuple[Tensor, ...], pool: object) -> Callable[..., Tensor]:
    """As `torch.cuda.make_graphed_callables`: inputs, output and gradient have one place each, written every time."""
    inputs = [one.detach().clone().requires_grad_(one.requires_grad) for one in sample]
    out, result = torch.empty(0), torch.empty(0)

    class Replay(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *given: Tensor) -> Tensor:
            nonlocal out
            for place, one in zip(inputs, given, strict=True):
                place.data.copy_(one)
            with torch.enable_grad():
                ctx.made = work(*inputs)
            out = ctx.made.detach() if not len(out) else out.copy_(ctx.made.detach())
            return out.detach()

        @staticmethod
        def backward(ctx: Any, *above: Tensor) -> Any:
            nonlocal result
            (new,) = torch.autograd.grad(ctx.made, inputs[-1:], above)
            result = new if not len(result) else result.copy_(new)
            return (*[None] * (len(inputs) - 1), result.detach())

    return Replay.apply  # type: ignore[no-any-return]


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows and tokens of every recording."""
    made: list[int] = []

    def counted(work: Callable[..., Tensor], sample: tuple[Tensor, ...], pool: object) -> Callable[..., Tensor]:
        made.append(sample[0].shape[1])
        return record(work, sample, pool)

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", counted)
    return made


def test_recorded_passes_give_the_losses_and_gradients_of_the_models_own(engine: Make, recording: list[int]) -> None:
    plain, recorded = engine(), engine()
    recorded._graphs = Graphs(recorded._model, recorded._bank)
    for one in (plain, recorded):
        one.create({"a": 1, "b": 2})
        stir(one, "a", "b")
    for turn in range(3):  # the second and third are recorded, and b's must not overwrite a's
        for name, seed in (("a", turn), ("b", 10 + turn)):
            batch = {name: Batch(pairs(seed, 3), nll)}
            mine, theirs = (one.forward_backward(batch).result()[name] for one in (recorded, plain))
            assert isinstance(mine, Step)
            assert isinstance(theirs, Step)
            assert mine.loss == pytest.approx(theirs.loss, rel=1e-5)
    assert recording == [256]
    for name in ("a", "b"):
        wanted = gradient(plain, name)
        torch.testing.assert_close(gradient(recorded, name), wanted, rtol=1e-4, atol=1e-5 * wanted.abs().max().item())


def test_a_model_that_cannot_be_recorded_trains_as_before(
    engine: Make, recording: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", refuse)
    ours = engine()
    ours._graphs = Graphs(ours._model, ours._bank)
    ours.create({"a": 1})
    outcomes = [ours.forward_backward({"a": Batch(pairs(1, 3), nll)}).result()["a"] for _ in range(3)]
    assert [isinstance(one, Step) for one in outcomes] == [True] * 3
    assert ours._graphs.failure == "operation not permitted when stream is capturing"
