"""Losses and gradients: packed against padded, and both against transformers' own forward."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from batches import dpo, gradient, nll, pairs, sequence, stir, tokens
from checkpoints import LENGTH, LORA, SHAPE
from torch import Tensor
from transformers import AutoModelForCausalLM, Gemma3TextConfig

from cai_base.cache import cache_folder
from cai_base.engines import Batch, Datum, EngineError, Findings, LossValue, SampleRequest, Step
from cai_base.engines.local import LocalEngine, forward, layout

Make = Callable[..., LocalEngine]


def batch_kinds() -> dict[str, list[Datum]]:
    generator = np.random.default_rng(7)
    a, b, c = (tokens(generator, n) for n in (12, 9, 30))
    return {
        "pairs behind one prefix": pairs(0, 4),
        "a prompt that is a prefix of another": [sequence(a, b), sequence(a + b[:3], c), sequence(a + b, c)],
        "duplicates": [sequence(a, b), sequence(a, b), sequence(a + b, c, 0.5), sequence(a, b)],
        "one sequence": [sequence(a, c)],
        "nothing shared": [sequence(a, b), sequence(b, a), sequence(c, a)],
        "weights of all kinds": [
            Datum(a, (0.0, -1.0, 0.0, 2.5, *[0.25] * 8)),
            sequence(a, b),
            Datum(c, (0.0,) * 30),
        ],
        "a single token": [sequence(a, b), Datum((5,), (0.0,))],
    }


def plain_sums(folder: str, batch: list[Datum]) -> Tensor:
    """The same sums, one sequence at a time, by transformers' own forward without LoRA."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    sums = []
    for s in batch:
        with torch.inference_mode():
            logprobs = model(torch.tensor([s.tokens])).logits[0].log_softmax(dim=-1)
        each = logprobs[range(len(s.tokens) - 1), list(s.tokens[1:])]
        sums.append(each @ torch.tensor(s.weights[1:]))
    return torch.stack(sums)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral", "windowed"])
def test_packed_equals_padded_in_sums_and_gradients(engine: Make, kind: str) -> None:
    packed, padded = engine(kind), engine(kind, pack=False)
    assert (packed.packed, padded.packed) == (True, False)
    assert packed.notes == padded.notes == ()
    for either in (packed, padded):
        either.create({"a": 1})
        stir(either, "a")
    for batch in batch_kinds().values():
        steps = [e.forward_backward({"a": Batch(batch, nll)}).result()["a"] for e in (packed, padded)]
        assert isinstance(steps[0], Step)
        assert steps[0] == Step(pytest.approx(steps[1].loss, rel=1e-4), {}, sum(len(s.tokens) for s in batch))
        got, wanted = gradient(packed, "a"), gradient(padded, "a")
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max() + 1e-6))
        sums = [e.compute_logprobs({"a": batch})["a"] for e in (packed, padded)]
        assert sums[0] == pytest.approx(sums[1], rel=1e-4)
        for e in (packed, padded):
            e._bank.adapters["a"].gradient = None


@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral", "windowed"])
@pytest.mark.parametrize("pack", [True, False])
def test_the_base_model_gives_transformers_own_sums(
    engine: Make, folder: Callable[[str], str], kind: str, pack: bool
) -> None:
    for batch in batch_kinds().values():
        got = engine(kind, pack=pack).compute_logprobs({None: batch})[None]
        torch.testing.assert_close(torch.tensor(got), plain_sums(folder(kind), batch), rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("hidden_window")
def test_a_hidden_window_shorter_than_the_row_is_found_and_run_padded(
    engine: Make, folder: Callable[[str], str]
) -> None:
    windowed = engine("windowed")
    assert not windowed.packed
    assert len(windowed.notes) == 1
    assert "runs padded" in windowed.notes[0]
    batch = pairs(3, 4)
    assert max(len(s.tokens) for s in batch) > 24
    wanted = plain_sums(folder("windowed"), batch)
    windowed.create({"a": 1})
    got = windowed.compute_logprobs({"a": batch, None: batch})
    torch.testing.assert_close(torch.tensor([got["a"], got[None]]), torch.stack([wanted, wanted]), rtol=1e-4, atol=1e-4)
    step = windowed.forward_backward({"a": Batch(batch, nll)}).result()["a"]
    assert isinstance(step, Step)
    assert step.loss == pytest.approx(-wanted.mean().item(), rel=1e-4)


def test_the_comparison_of_layouts_is_remembered_by_weights_length_and_version(
    engine: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []
    compare = layout.compare_layouts

    def counted(model: Any, length: int, *, pack: bool) -> Any:
        lengths.append(length)
        return compare(model, length, pack=pack)

    monkeypatch.setattr(layout, "compare_layouts", counted)
    first = engine("windowed").findings()
    assert engine("windowed").findings() == first
    assert lengths == [LENGTH]
    engine("windowed", length=40)
    engine("mistral")
    assert lengths == [LENGTH, 40, LENGTH]
    monkeypatch.setattr(transformers, "__version__", "5.99.0")
    assert engine("windowed").findings() == first
    assert lengths == [LENGTH, 40, LENGTH, LENGTH]
    for file in (cache_folder() / "layouts").iterdir():
        file.write_text("{")
    assert engine("windowed").findings() == first, "what is damaged is found out again"
    assert len(lengths) == 5


def test_packing_is_checked_on_as_few_layers_as_have_every_kind() -> None:
    types = ["sliding_attention", "sliding_attention", "full_attention"] * 2
    shape = SHAPE | {"num_hidden_layers": 6, "layer_types": types, "sliding_window": 24, "head_dim": 8}
    model = AutoModelForCausalLM.from_config(Gemma3TextConfig(**shape)).eval()
    depths: list[int] = []
    model.model.norm.register_forward_hook(lambda *_: depths.append(len(model.model.layers)))
    assert layout.compare_layouts(model, 64, pack=True)[0].packed
    assert depths[-2:] == [3, 3], "two layers with windows and one without, once alone and once packed"
    assert len(model.model.layers) == 6
    model.model.layers[4].self_attn.scaling *= 1.5
    assert layout.compare_layouts(model, 64, pack=True)[0].packed
    assert depths[-2:] == [5, 5], "that layer is a kind of its own"


@pytest.mark.parametrize("wrong", [None, 0, 2, 3])
def test_long_sequences_go_through_the_first_layer_of_each_kind_alone(wrong: int | None) -> None:
    """A layer is wrong here that adds to a token what depends on its column in the row."""
    types = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
    shape = SHAPE | {"num_hidden_layers": 4, "layer_types": types, "sliding_window": 24, "head_dim": 8}
    model = AutoModelForCausalLM.from_config(Gemma3TextConfig(**shape)).eval()
    computed: list[int] = []

    def of_layer(place: int) -> Any:
        def look(_: Any, inputs: Any, states: torch.Tensor) -> torch.Tensor:
            if states.shape[1] < 64:
                return states
            computed.append(place)
            columns = torch.linspace(0, 1, states.shape[1])[:, None] * torch.arange(states.shape[2])
            return states + columns if place == wrong else states

        return look

    for place, layer in enumerate(model.model.layers):
        if place == wrong == 3:
            layer.self_attn.of_its_own_kind = True
        layer.register_forward_hook(of_layer(place))
    packed = layout.compare_layouts(model, 64, pack=True)[0].packed
    assert packed == (wrong is None)
    assert set(computed) == ({0, 2, 3} if wrong == 3 else {0, 2})
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == [0, 1, 2, 3]


@pytest.mark.parametrize("length", [64, 200])
def test_the_comparison_of_layouts_computes_logits_only_where_it_looks(length: int) -> None:
    shape = SHAPE | {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 24, "head_dim": 8}
    model = AutoModelForCausalLM.from_config(Gemma3TextConfig(**shape)).eval()
    rows: list[int] = []
    model.lm_head.register_forward_hook(lambda head, inputs, logits: rows.append(logits.numel() // logits.shape[-1]))
    assert layout.compare_layouts(model, length, pack=True)[0].packed
    assert 2 * layout.COMPARED <= sum(rows) < 100, "however long the sequences are"


def test_the_same_weights_with_another_window_are_compared_anew(folder: Callable[[str], str], tmp_path: Path) -> None:
    other = Path(shutil.copytree(folder("windowed"), tmp_path / "other"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"sliding_window": 5}))
    for path in (folder("windowed"), str(other)):
        LocalEngine(path, LORA, sequence_length=40, device="cpu")
    assert len(list((cache_folder() / "layouts").iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_not_an_error(
    engine: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CAI_BASE_CACHE", str(tmp_path / "file"))
    assert engine("windowed").packed


@pytest.mark.usefixtures("hidden_window")
def test_an_engine_restores_the_layout_of_an_interrupted_run(engine: Make) -> None:
    begun = engine("windowed", length=10)
    begun.compute_logprobs({None: pairs(3, 4)})
    assert not begun.packed, "a sequence was longer than was said, and the layout changed"
    again = engine("windowed", length=10, findings=Findings.model_validate_json(begun.findings().model_dump_json()))
    assert (again.packed, again.notes) == (False, begun.notes)
    packed = engine("windowed", length=10).findings()
    assert engine("windowed", findings=packed).packed, "at its own length it would have chosen to pad"


def test_an_engine_refuses_findings_about_other_weights(engine: Make) -> None:
    with pytest.raises(EngineError, match=r"model .*: its weights differ from those that this run began with"):
        engine("llama", findings=engine("mistral").findings())


@pytest.mark.usefixtures("hidden_window")
@pytest.mark.parametrize("length", [26, 27, 40])
def test_a_hidden_window_one_token_too_short_is_found(engine: Make, length: int) -> None:
    assert not engine("windowed", length=length).packed


@pytest.mark.usefixtures("hidden_window")
@pytest.mark.parametrize("length", [12, 25])
def test_a_hidden_window_longer_than_the_longest_sequence_does_no_harm(engine: Make, length: int) -> None:
    assert engine("windowed", length=length).packed  # what the last token predicts is never asked for


@pytest.mark.usefixtures("hidden_window")
def test_a_hidden_window_is_found_when_a_sequence_is_longer_than_announced(
    engine: Make, folder: Callable[[str], str]
) -> None:
    batch = pairs(3, 4)
    wanted = plain_sums(folder("windowed"), batch)
    for ask in (
        lambda e: e.compute_logprobs({None: batch}),
        lambda e: e.forward_backward({"a": Batch(batch, nll)}),
        lambda e: e.sample([SampleRequest(None, batch[0].tokens, 8, 0.0, (), 0)]),
    ):
        windowed = engine("windowed", length=10)
        windowed.create({"a": 1})
        windowed.compute_logprobs({None: [Datum((2, 3, 4), (0.0, 1.0, 1.0))]})
        assert (windowed.packed, windowed.notes) == (True, ())
        ask(windowed)
        assert not windowed.packed
        assert len(windowed.notes) == 1
        got = windowed.compute_logprobs({None: batch})[None]
        torch.testing.assert_close(torch.tensor(got), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "windowed"])
def test_the_margin_is_exactly_zero_before_the_first_update(engine: Make, kind: str) -> None:
    fresh = engine(kind)
    fresh.create({"a": 1, "b": 2})
    stir(fresh, "a")
    batches = {"a": pairs(1, 4), "b": pairs(2, 4)}
    reference = fresh.compute_logprobs(batches)
    steps = fresh.forward_backward({n: Batch(batches[n], dpo(reference[n])) for n in batches}).result()
    for step in steps.values():
        assert isinstance(step, Step)
        assert step.metrics == dict.fromkeys(step.metrics, 0.0)
        assert step.loss == pytest.approx(0.6931472)


def test_many_logits_in_chunks_equal_all_at_once(engine: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for chunk in (4096, 5):
        monkeypatch.setattr(forward, "HEAD_CHUNK", chunk)
        fresh = engine()
        fresh.create({"a": 1})
        stir(fresh, "a")
        fresh.forward_backward({"a": Batch(pairs(1, 4), nll)})
        results.append((fresh.compute_logprobs({"a": pairs(1, 4)})["a"], gradient(fresh, "a")))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-4, atol=1e-6)


def test_recomputed_activations_give_the_same_gradients(engine: Make) -> None:
    results = []
    for recompute in (False, True):
        fresh = engine()
        fresh._kept_tokens = 0 if recompute else None
        fresh.create({"a": 1})
        stir(fresh, "a")
        fresh.forward_backward({"a": Batch(pairs(1, 4), nll)})
        results.append(gradient(fresh, "a"))
    assert torch.equal(*results)


def test_gradients_add_up_until_the_optimizer_step(engine: Make) -> None:
    whole, halves = engine(), engine()
    batch = pairs(1, 4)

    def total(sums: Tensor) -> LossValue:
        return LossValue(-sums.sum())

    for each in (whole, halves):
        each.create({"a": 1})
        stir(each, "a")
    whole.forward_backward({"a": Batch(batch, total)})
    halves.forward_backward({"a": Batch(batch[:4], total)})
    halves.forward_backward({"a": Batch(batch[4:], total)})
    torch.testing.assert_close(gradient(whole, "a"), gradient(halves, "a"), rtol=1e-4, atol=1e-3)


def test_batches_that_do_not_fit_are_split(engine: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: dict[str | None, list[Datum]] = {"a": pairs(1, 4), "b": pairs(2, 2), None: pairs(3, 5)}
    fresh = engine()
    fresh.create({"a": 1, "b": 2})
    stir(fresh, "a", "b")
    together = fresh.compute_logprobs(batches)
    monkeypatch.setattr("cai_base.engines.local.FORWARD_TOKENS", 60)
    apart = fresh.compute_logprobs(batches)
    assert list(apart) == list(together)
    for name in batches:
        assert apart[name] == pytest.approx(together[name], rel=1e-5)
    train = {name: Batch(batches[name], nll) for name in ("a", "b")}
    steps = fresh.forward_backward(train).result()
    assert [step.loss for step in steps.values()] == pytest.approx([-np.mean(together[n]) for n in train], rel=1e-5)  # type: ignore[union-attr]


def test_no_sequences_give_no_sums(engine: Make) -> None:
    assert engine().compute_logprobs({None: []}) == {None: []}
