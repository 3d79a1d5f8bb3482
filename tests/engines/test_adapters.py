"""Adapters: N together equal N alone, a failed one does not stop the others, and stored ones load unchanged."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from batches import WORDS, gradient, nll, pairs, parameters, stir, train
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM

from cai_base.engines import Adam, Batch, Datum, EngineError, Failed, Lora, LossValue, SampleRequest, Step
from cai_base.engines.local import LocalEngine, peft_format

Make = Callable[..., LocalEngine]
ADAM = Adam(1e-2, eps=1e-3)
"""Near a gradient of 0 an eps of 1e-8 steps by its sign, which is rounding."""
SIZES = {"a": 4, "b": 1, "c": 7}


def data(steps: int) -> dict[str, list[list[Datum]]]:
    """For each adapter its own batches, of its own size."""
    return {name: [pairs(100 * i + step, n) for step in range(steps)] for i, (name, n) in enumerate(SIZES.items())}


@pytest.mark.parametrize("kind", ["llama", "qwen3", "windowed"])
def test_adapters_together_are_what_they_are_alone(engine: Make, kind: str) -> None:
    batches = data(4)
    together = engine(kind)
    together.create({name: i for i, name in enumerate(SIZES)})
    losses = train(together, batches, ADAM)
    together.forward_backward({name: Batch(batches[name][0], nll) for name in SIZES})
    for i, name in enumerate(SIZES):
        alone = engine(kind)
        alone.create({name: i})
        assert train(alone, {name: batches[name]}, ADAM)[name] == pytest.approx(losses[name], rel=1e-4)
        torch.testing.assert_close(parameters(alone, name), parameters(together, name), rtol=1e-3, atol=1e-4)
        alone.forward_backward({name: Batch(batches[name][0], nll)})
        wanted = gradient(alone, name)
        torch.testing.assert_close(gradient(together, name), wanted, rtol=1e-3, atol=1e-3 * wanted.abs().max().item())


def test_a_new_adapter_depends_only_on_its_seed_and_begins_as_the_base_model(engine: Make) -> None:
    one, other = engine(), engine()
    one.create({"a": 3, "b": 4})
    other.create({"x": 4})
    other.create({"y": 3})
    assert torch.equal(parameters(one, "a"), parameters(other, "y"))
    assert torch.equal(parameters(one, "b"), parameters(other, "x"))
    sums = one.compute_logprobs({"a": pairs(0, 3), None: pairs(0, 3)})
    assert sums["a"] == pytest.approx(sums[None], rel=1e-6)


def bad_loss(sums: Tensor) -> LossValue:
    return LossValue(sums.mean() * float("nan"))


def bad_gradient(sums: Tensor) -> LossValue:
    return LossValue((sums - sums.detach()).sqrt().sum())


@pytest.mark.parametrize(("bad", "reason"), [(bad_loss, "the loss is nan"), (bad_gradient, "gradient")])
def test_a_non_finite_adapter_stops_and_the_others_continue(
    engine: Make, bad: Callable[[Tensor], LossValue], reason: str
) -> None:
    batches = data(5)
    crowd, alone = engine(), engine()
    crowd.create({"a": 0, "b": 1, "c": 2})
    alone.create({"a": 0, "c": 2})
    losses: dict[str, list[float]] = {"a": [], "c": []}
    kept = None
    for step in range(5):
        loss = {"a": nll, "b": bad if step == 2 else nll, "c": nll}
        outcomes = crowd.forward_backward({n: Batch(batches[n][step], loss[n]) for n in loss}).result()
        assert list(outcomes) == ["a", "b", "c"]
        if step == 2:
            kept = parameters(crowd, "b")
        crowd.optim_step(["a", "b", "c"], ADAM)
        assert isinstance(outcomes["b"], Step if step < 2 else Failed)
        if isinstance(outcomes["b"], Failed):
            assert reason in outcomes["b"].reason
        for name in losses:
            losses[name].append(outcomes[name].loss)  # type: ignore[union-attr]
    assert kept is not None
    assert torch.equal(parameters(crowd, "b"), kept)
    wanted = train(alone, {name: batches[name] for name in losses}, ADAM)
    for name in losses:
        assert losses[name] == pytest.approx(wanted[name], rel=1e-4)
        torch.testing.assert_close(parameters(crowd, name), parameters(alone, name), rtol=1e-3, atol=1e-4)


def test_an_adapter_with_overflowing_activations_stops_and_the_others_continue(engine: Make) -> None:
    crowd, alone = engine(), engine()
    for each in (crowd, alone):
        each.create({"a": 0, "b": 1})
    crowd._bank.adapters["b"].parameters.fill_(float("inf"))
    outcomes = crowd.forward_backward({name: Batch(pairs(1, 3), nll) for name in ("a", "b")}).result()
    assert isinstance(outcomes["b"], Failed)
    wanted = alone.forward_backward({"a": Batch(pairs(1, 3), nll)}).result()
    assert outcomes["a"].loss == pytest.approx(wanted["a"].loss, rel=1e-5)  # type: ignore[union-attr]
    torch.testing.assert_close(gradient(crowd, "a"), gradient(alone, "a"), rtol=1e-4, atol=1e-5)


def test_an_adapter_whose_weights_overflow_in_an_update_fails_in_the_same_step(engine: Make) -> None:
    """After the last update nothing is computed with the weights any more before they are stored."""
    ours = engine()
    ours.create({"a": 0, "b": 1})
    ours.forward_backward({name: Batch(pairs(1, 3), nll) for name in ("a", "b")})
    assert ours.optim_step(["a"], ADAM) == {}
    ours._bank.adapters["b"].parameters.fill_(3.4e38)  # the largest number in fp32
    failed = ours.optim_step(["b"], Adam(learning_rate=1e37))
    assert failed == {"b": Failed("its weights were no longer finite after update 1")}
    outcomes = ours.forward_backward({name: Batch(pairs(2, 3), nll) for name in ("a", "b")}).result()
    assert [type(outcomes[name]) for name in ("a", "b")] == [Step, Failed]


def test_steps_are_those_of_torch(engine: Make) -> None:
    ours = engine()
    ours.create({"a": 1})
    reference = torch.nn.Parameter(parameters(ours, "a"))
    adam = Adam(3e-3, beta1=0.8, beta2=0.95, eps=1e-6, clip_norm=0.7)
    optimizer = torch.optim.Adam([reference], lr=3e-3, betas=(0.8, 0.95), eps=1e-6)
    norms = []
    for step in range(6):
        ours.forward_backward({"a": Batch(pairs(step, 2), lambda sums, s=step: LossValue(-sums.mean() * 0.03 * s))})
        reference.grad = gradient(ours, "a").clone()
        norms.append(torch.nn.utils.clip_grad_norm_([reference], 0.7).item())
        optimizer.step()
        ours.optim_step(["a"], adam)
        torch.testing.assert_close(parameters(ours, "a"), reference.data, rtol=1e-6, atol=1e-7)
    assert min(norms) < 0.7 < max(norms), "both sides of the clipping are tried"


def test_a_step_without_a_gradient_is_a_defect(engine: Make) -> None:
    fresh = engine()
    fresh.create({"a": 1})
    with pytest.raises(ValueError, match="forward_backward comes before"):
        fresh.optim_step(["a"], ADAM)


def test_a_loaded_adapter_continues_exactly_as_without_interruption(engine: Make, tmp_path: Path) -> None:
    batches = data(5)
    through, first, second = engine(), engine(), engine()
    for each in (through, first):
        each.create({"a": 0, "b": 1, "c": 2})
    wanted = train(through, batches, ADAM)
    train(first, {name: mine[:3] for name, mine in batches.items()}, ADAM)
    first.save({name: tmp_path / name for name in SIZES})
    second.load({name: tmp_path / name for name in SIZES}, optimizer=True)
    assert {n: first.fingerprint(n) for n in SIZES} == {n: second.fingerprint(n) for n in SIZES}
    rest = train(second, {name: mine[3:] for name, mine in batches.items()}, ADAM)
    assert rest == {name: losses[3:] for name, losses in wanted.items()}
    for name in SIZES:
        assert torch.equal(parameters(second, name), parameters(through, name))


def test_saving_twice_writes_the_same_bytes(engine: Make, tmp_path: Path) -> None:
    trained = engine()
    trained.create({"a": 0})
    train(trained, {"a": data(1)["a"]}, ADAM)
    trained._bank.adapters["a"].failed = "a reason"
    trained.save({"a": tmp_path / "one"})
    trained.save({"a": tmp_path / "other"})
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "other" / file.name).read_bytes()


def test_an_adapter_loaded_without_its_optimizer_starts_afresh(engine: Make, tmp_path: Path) -> None:
    trained, loaded = engine(), engine()
    trained.create({"a": 0})
    train(trained, {"a": data(2)["a"]}, ADAM)
    trained.save({"a": tmp_path})
    loaded.load({"renamed": tmp_path}, optimizer=False)
    state = loaded._bank.adapters["renamed"]
    assert torch.equal(state.parameters, parameters(trained, "a"))
    assert (state.steps, state.first.count_nonzero().item(), state.second.count_nonzero().item()) == (0, 0, 0)


def test_a_copy_is_its_source_with_a_fresh_optimizer_and_trains_apart_from_it(engine: Make, tmp_path: Path) -> None:
    ours = engine()
    ours.create({"sft": 0})
    train(ours, {"sft": data(2)["a"]}, ADAM)
    ours.save({"sft": tmp_path})
    ours.copy({"dpo": "sft"})
    ours.load({"loaded": tmp_path}, optimizer=False)
    before = parameters(ours, "sft")
    assert ours.fingerprint("dpo") == ours.fingerprint("loaded") == ours.fingerprint("sft")
    batches = data(5)["a"][2:]
    losses = train(ours, {"dpo": batches, "loaded": batches}, ADAM)
    assert losses["dpo"] == pytest.approx(losses["loaded"], rel=1e-6)
    torch.testing.assert_close(parameters(ours, "dpo"), parameters(ours, "loaded"), rtol=1e-4, atol=1e-6)
    assert torch.equal(parameters(ours, "sft"), before)
    copied = parameters(ours, "dpo")
    train(ours, {"sft": batches}, ADAM)
    assert torch.equal(parameters(ours, "dpo"), copied)


def test_a_failed_adapter_is_still_failed_when_loaded(engine: Make, tmp_path: Path) -> None:
    first, second = engine(), engine()
    first.create({"a": 0})
    first.forward_backward({"a": Batch(pairs(0, 2), bad_loss)})
    first.save({"a": tmp_path})
    second.load({"a": tmp_path}, optimizer=True)
    outcome = second.forward_backward({"a": Batch(pairs(0, 2), nll)}).result()["a"]
    assert outcome == Failed("the loss is nan")


def test_an_adapter_of_another_shape_is_refused(engine: Make, tmp_path: Path) -> None:
    first = engine()
    first.create({"a": 0})
    first.export({"a": tmp_path})
    with pytest.raises(EngineError, match="not an adapter of this model and rank"):
        engine(lora=Lora(8, 8)).load({"a": tmp_path}, optimizer=False)
    with pytest.raises(EngineError, match="not an adapter of this model and rank"):
        engine("qwen3").load({"a": tmp_path}, optimizer=False)


def test_peft_s_adapter_of_some_layers_gives_equal_logits_here(folder: Callable[[str], str], tmp_path: Path) -> None:
    settings = LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    torch.manual_seed(0)
    theirs = get_peft_model(AutoModelForCausalLM.from_pretrained(folder("llama")), settings)
    theirs.save_pretrained(tmp_path)
    shape = peft_format.shape(tmp_path)
    assert shape == Lora(2, 6)
    ours = LocalEngine(folder("llama"), shape, sequence_length=32, device="cpu")
    ours.load({"a": tmp_path}, optimizer=False)
    tokens = torch.randint(2, WORDS, (20,), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logprobs = theirs(tokens[None]).logits[0, :-1].log_softmax(dim=-1)
    wanted = logprobs.gather(1, tokens[1:, None]).sum().item()
    asked = [Datum(tuple(tokens.tolist()), (0.0, *[1.0] * 19))]
    sums = ours.compute_logprobs({"a": asked, None: asked})
    assert sums["a"] == pytest.approx([wanted], rel=1e-4)
    assert sums[None] != pytest.approx([wanted], rel=1e-2)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral"])
def test_an_exported_adapter_gives_equal_logits_in_peft(
    engine: Make, folder: Callable[[str], str], tmp_path: Path, kind: str
) -> None:
    ours = engine(kind)
    ours.create({"a": 1})
    stir(ours, "a")
    ours.export({"a": tmp_path})
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder(kind)), tmp_path)
    ids = torch.randint(2, WORDS, (2, 30), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = theirs(ids).logits
        with theirs.disable_adapter():
            base = theirs(ids).logits
        with ours._bank.active(["a"]):
            got = ours._model(ids).logits
        plain = ours._model(ids).logits
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(plain, base, rtol=1e-4, atol=1e-4)
    assert (wanted - base).abs().max() > 0.1


def test_the_fingerprint_changes_with_any_weight(engine: Make, folder: Callable[[str], str], tmp_path: Path) -> None:
    ours = engine()
    ours.create({"a": 1, "b": 1})
    first = ours.fingerprint("a")
    assert first == ours.fingerprint("b")
    for place in (0, 1234, -1):
        parameters = ours._bank.adapters["b"].parameters
        parameters[place] += 1e-6
        assert ours.fingerprint("b") != first
        parameters[place] = ours._bank.adapters["a"].parameters[place]
    assert ours.fingerprint("b") == first
    model = AutoModelForCausalLM.from_pretrained(folder("llama"))
    model.model.layers[1].mlp.up_proj.weight.data[40, 17] += 1e-3
    model.save_pretrained(tmp_path)
    for file in Path(folder("llama")).glob("tokenizer*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    changed = LocalEngine(str(tmp_path), ours._bank.settings, sequence_length=32, device="cpu")
    changed.create({"a": 1})
    assert changed.fingerprint("a") != first


def test_an_adapter_that_was_removed_is_gone(engine: Make) -> None:
    fresh = engine()
    fresh.create({"a": 1, "b": 2})
    fresh.remove(["a"])
    with pytest.raises(EngineError, match="adapter a: is not in the engine; its adapters are b"):
        fresh.sample([SampleRequest("a", (2,), 1, 1.0, (), 0)])
    assert isinstance(fresh.forward_backward({"b": Batch(pairs(0, 1), nll)}).result()["b"], Step)


@pytest.mark.parametrize(("tokens", "weights"), [((), ()), ((1, 2), (0.0,)), ((1, 2), (1.0, 1.0))])
def test_an_invalid_sequence_is_refused(tokens: tuple[int, ...], weights: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="Datum"):
        Datum(tokens, weights)
