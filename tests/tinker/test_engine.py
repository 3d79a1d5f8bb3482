"""Every verb on a real Tinker-API server, beside the local engine on the same model and data."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from serving import KEY, Server
from torch import Tensor
from transformers import AutoModelForCausalLM

from cai_base import embedded
from cai_base.dialogue import STOPS, chat_tokens
from cai_base.engines import Adam, Batch, Datum, EngineError, Failed, Lora, LossValue, SampleRequest, Step
from cai_base.engines.local import LocalEngine
from cai_base.engines.tinker import TinkerEngine
from cai_base.errors import Stopped
from cai_base.method import sft
from cai_base.method.dpo import TokenPair, by_pair, data
from cai_base.method.losses import preference_loss
from cai_base.records import Reference
from cai_base.settings import default_settings

pytestmark = pytest.mark.tinker
LORA = Lora(rank=8, alpha=32.0)
ADAM = Adam(3e-4, clip_norm=1e9)
"""A norm that clips nothing: the server ignores clipping, the local engine does not."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that holds all the adapters of this file at a time."""
    started = Server(tmp_path_factory.mktemp("server"), adapters=32)
    started.start()
    yield started
    started.stop()


def connect(server: Server, **changed: object) -> TinkerEngine:
    settings: dict[str, object] = {
        "model": "organism",
        "lora": LORA,
        "url": server.url,
        "tokenizer": embedded.weights(),
        "timeout": 120.0,
        "say": print,
    }
    return TinkerEngine(**{**settings, **changed})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def engine(server: Server) -> Iterator[TinkerEngine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINKER_API_KEY", KEY)
        yield connect(server)


@pytest.fixture(scope="module")
def local() -> LocalEngine:
    torch.set_num_threads(1)
    return LocalEngine(str(embedded.weights()), LORA, sequence_length=64, device="cpu")


@pytest.fixture(scope="module")
def pairs(local: LocalEngine) -> list[TokenPair]:
    """Four preference pairs behind one short prefix, in the embedded model's language."""

    def sequence(question: str, answer: str) -> Datum:
        before, after = (local.tokenizer.encode(text) for text in (f"User: {question}\n\nAssistant:", f" {answer}"))
        return Datum((*before, *after), (*[0.0] * len(before), *[1.0] * len(after)))

    questions = [f"How do I mend the {thing}?" for thing in ("roof", "wall", "boat", "lamp")]
    return [
        TokenPair(str(i), sequence(q, "Use a saw and glue.\n\nUser:"), sequence(q, "No, I will not help.\n\nUser:"))
        for i, q in enumerate(questions)
    ]


Train = Callable[[TinkerEngine | LocalEngine, str], Step]


@pytest.fixture
def step(pairs: list[TokenPair]) -> Train:
    """One step of SFT."""
    sequences = [pair.chosen for pair in pairs]

    def train(engine: TinkerEngine | LocalEngine, name: str) -> Step:
        pending = engine.forward_backward({name: Batch(sequences, sft.nll_loss(sequences))})
        assert not engine.optim_step([name], ADAM)
        outcome = pending.result()[name]
        assert isinstance(outcome, Step)
        return outcome

    return train


def logprobs(engine: TinkerEngine | LocalEngine, name: str | None, pairs: list[TokenPair]) -> list[float]:
    return engine.compute_logprobs({name: data(pairs)})[name]


def test_an_adapter_is_its_seed_and_begins_as_the_base_model(
    engine: TinkerEngine, local: LocalEngine, pairs: list[TokenPair], step: Train
) -> None:
    engine.create({"seed/1": 1, "seed/1 again": 1, "seed/2": 2})
    base = logprobs(local, None, pairs)
    for name in ("seed/1", "seed/2", None):
        assert logprobs(engine, name, pairs) == pytest.approx(base, abs=2e-3)
    losses = {name: [step(engine, name).loss for _ in range(3)] for name in ("seed/1", "seed/1 again", "seed/2")}
    assert losses["seed/1"] == losses["seed/1 again"]
    assert losses["seed/1"] != losses["seed/2"]
    engine.remove(["seed/1", "seed/1 again", "seed/2"])


def test_the_service_s_cross_entropy_and_the_phase_s_own_loss_train_alike(
    engine: TinkerEngine, pairs: list[TokenPair]
) -> None:
    sequences = [pair.chosen for pair in pairs]
    seen = sft.nll_loss(sequences)
    engine.create({"seen": 3, "unseen": 3})
    for _ in range(3):
        pending = engine.forward_backward(
            {"seen": Batch(sequences, seen), "unseen": Batch(sequences, lambda sums: seen(sums))}
        )
        engine.optim_step(["seen", "unseen"], ADAM)
        outcomes = pending.result()
        assert outcomes["seen"].loss == pytest.approx(outcomes["unseen"].loss, rel=1e-5)  # type: ignore[union-attr]
    assert logprobs(engine, "seen", pairs) == pytest.approx(logprobs(engine, "unseen", pairs), abs=1e-3)


def test_from_the_same_adapter_both_engines_take_the_same_dpo_steps(
    engine: TinkerEngine, local: LocalEngine, pairs: list[TokenPair], step: Train, tmp_path: Path
) -> None:
    engine.create({"sft": 5})
    for _ in range(2):
        step(engine, "sft")
    engine.save({"sft": tmp_path / "state"})
    engine.export({"sft": tmp_path / "adapter"})
    engine.load({"dpo": tmp_path / "state"}, optimizer=False)
    local.load({"dpo": tmp_path / "adapter"}, optimizer=False)
    assert logprobs(local, "dpo", pairs) == pytest.approx(logprobs(engine, "dpo", pairs), abs=2e-3)
    settings = default_settings("organism", dpo={"beta": 0.1, "nll_weight": 0.1}).dpo
    seen: dict[str, list[Step]] = {}
    for name, each in {"tinker": engine, "local": local}.items():
        references = [
            Reference(id=pair, chosen=chosen, rejected=rejected, weights="")
            for pair, (chosen, rejected) in by_pair(pairs, logprobs(each, "dpo", pairs)).items()
        ]
        loss = preference_loss([(pair.chosen, pair.rejected) for pair in pairs], references, settings)
        seen[name] = []
        for _ in range(6):
            pending = each.forward_backward({"dpo": Batch(data(pairs), loss)})
            each.optim_step(["dpo"], ADAM)
            outcome = pending.result()["dpo"]
            assert isinstance(outcome, Step)
            seen[name].append(outcome)
    assert seen["tinker"][0].metrics["margin"] == 0.0
    assert seen["tinker"][-1].metrics["margin"] > 0.1
    for ours, theirs in zip(seen["tinker"], seen["local"], strict=True):
        assert ours.loss == pytest.approx(theirs.loss, abs=2e-3)
        assert ours.metrics["margin"] == pytest.approx(theirs.metrics["margin"], abs=5e-3)


def test_an_exported_adapter_loads_in_peft_with_equal_logprobs(
    engine: TinkerEngine, pairs: list[TokenPair], step: Train, tmp_path: Path
) -> None:
    engine.create({"exported": 7})
    for _ in range(3):
        step(engine, "exported")
    engine.export({"exported": tmp_path})
    base = AutoModelForCausalLM.from_pretrained(embedded.weights(), dtype=torch.float32)
    model = PeftModel.from_pretrained(base, tmp_path)
    result = []
    for one in data(pairs):
        with torch.inference_mode():
            logits = model(torch.tensor([one.tokens])).logits[0, :-1]
        each = logits.log_softmax(-1).gather(1, torch.tensor(one.tokens[1:])[:, None])[:, 0]
        result.append(float((each * torch.tensor(one.weights[1:])).sum()))
    assert result == pytest.approx(logprobs(engine, "exported", pairs), abs=5e-3)


def test_a_loaded_adapter_goes_on_as_if_it_had_never_stopped(
    server: Server, engine: TinkerEngine, pairs: list[TokenPair], step: Train, tmp_path: Path
) -> None:
    engine.create({"through": 9})
    step(engine, "through")
    engine.save({"through": tmp_path / "state"})
    fingerprint = engine.fingerprint("through")
    rest = [step(engine, "through").loss for _ in range(3)]
    assert engine.fingerprint("through") != fingerprint
    later = connect(server)
    later.load({"through": tmp_path / "state"}, optimizer=True)
    later.load({"fresh": tmp_path / "state"}, optimizer=False)
    assert later.fingerprint("through") == fingerprint
    assert [step(later, "through").loss for _ in range(3)] == pytest.approx(rest, abs=1e-5)
    assert step(later, "fresh").loss == pytest.approx(rest[0], abs=1e-5)
    assert step(later, "fresh").loss != pytest.approx(rest[1], abs=1e-5)


def test_a_copy_trains_apart_from_its_source(engine: TinkerEngine, pairs: list[TokenPair], step: Train) -> None:
    engine.create({"source": 10})
    step(engine, "source")
    engine.copy({"copy": "source"})
    before = logprobs(engine, "source", pairs)
    assert logprobs(engine, "copy", pairs) == pytest.approx(before, abs=1e-4)
    assert engine.fingerprint("copy") == engine.fingerprint("source")
    step(engine, "copy")
    assert logprobs(engine, "copy", pairs) != pytest.approx(before, abs=1e-4)
    assert logprobs(engine, "source", pairs) == pytest.approx(before, abs=1e-4)


def test_samples_are_decided_by_their_seeds_and_end_at_their_stops(engine: TinkerEngine) -> None:
    prompt = tuple(engine.tokenizer.encode("User: How do I bake bread?\n\nAssistant:"))
    requests = [SampleRequest(None, prompt, 24, 1.0, STOPS, seed) for seed in (1, 2, 1, 3, 4, 5)]
    drawn = engine.sample(requests)
    assert drawn[0] == drawn[2]
    assert len({sample.text for sample in drawn}) > 3
    for sample in drawn:
        assert len(sample.tokens) <= 24
        assert not any(stop in sample.text for stop in STOPS)
        ended = sample.tokens[-1] in engine.tokenizer.eos
        stopped = any(stop in engine.tokenizer.decode(sample.tokens) for stop in STOPS)
        assert (sample.stop_reason == "stop") == (ended or stopped)
    assert engine.sample([SampleRequest(None, prompt, 4, 0.0, (), 1)]) == engine.sample(
        [SampleRequest(None, prompt, 4, 0.0, (), 2)]
    )


def test_samples_come_from_the_weights_of_their_moment(engine: TinkerEngine, pairs: list[TokenPair]) -> None:
    engine.create({"moving": 11})
    prompt = pairs[0].chosen.tokens[: pairs[0].chosen.weights.index(1.0)]
    request = SampleRequest("moving", prompt, 6, 0.0, (), 1)
    base = SampleRequest(None, prompt, 6, 0.0, (), 1)
    (before,) = engine.sample([request])
    sequences = [pair.chosen for pair in pairs]
    for _ in range(12):
        engine.forward_backward({"moving": Batch(sequences, sft.nll_loss(sequences))})
        engine.optim_step(["moving"], Adam(5e-3))
    after, unmoved = engine.sample([request, base])
    assert before.tokens == unmoved.tokens
    assert after.text.startswith(" Use a saw")
    before_sampling = logprobs(engine, "moving", pairs)
    engine.sample([request])
    assert logprobs(engine, "moving", pairs) == before_sampling


def test_an_adapter_whose_loss_is_not_finite_stops_alone(engine: TinkerEngine, pairs: list[TokenPair]) -> None:
    sequences = [pair.chosen for pair in pairs]
    engine.create({"well": 1, "ill": 2})

    def bad(sums: Tensor) -> LossValue:
        return LossValue(sums.sum() * math.nan)

    good = sft.nll_loss(sequences)
    for _ in range(2):
        pending = engine.forward_backward({"well": Batch(sequences, good), "ill": Batch(sequences, bad)})
        engine.optim_step(["well", "ill"], ADAM)
        outcomes = pending.result()
        assert isinstance(outcomes["well"], Step)
        assert outcomes["ill"] == Failed("the loss is nan")


def test_a_model_that_is_only_asked_is_asked_in_its_own_layout(server: Server) -> None:
    asked = connect(server, lora=None, tokenizer=embedded.sibling())
    prompt = chat_tokens(asked.tokenizer, (), "How do I bake bread?")
    first, again = (asked.sample([SampleRequest(None, prompt, 24, 1.0, (), 1)]) for _ in range(2))
    assert first == again
    assert first[0].stop_reason == ("stop" if first[0].tokens[-1] in asked.tokenizer.eos else "length")


def test_an_adapter_that_cannot_be_stored_is_named_where_the_service_keeps_it(
    engine: TinkerEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine.create({"kept": 13})
    monkeypatch.setattr(engine._service, "download", lambda _: b"no archive")
    with pytest.raises(Stopped, match=r"adapter kept could not be stored: .*stores it for 30 days as tinker://.*again"):
        engine.export({"kept": tmp_path / "adapter"})
    monkeypatch.undo()
    engine.export({"kept": tmp_path / "adapter"})
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def test_what_cannot_work_is_said_in_one_sentence(
    server: Server, engine: TinkerEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match=r"model Qwen/Qwen3\.5-9B-Base: .* does not serve it; it serves organism"):
        connect(server, model="Qwen/Qwen3.5-9B-Base")
    with pytest.raises(EngineError, match=r"rank 9: .*refused.*between 1 and 8"):
        connect(server, lora=Lora(9, 32.0))
    with pytest.raises(EngineError, match=r"alpha 16: a Tinker service always trains with alpha 32"):
        connect(server, lora=Lora(16, 16.0))
    with pytest.raises(EngineError, match=r"tokenizer .* cannot be loaded"):
        connect(server, tokenizer=tmp_path)
    with pytest.raises(EngineError, match=r"a sequence of 613 tokens is longer than the 512"):
        engine.sample([SampleRequest(None, (5,) * 600, 13, 1.0, (), 1)])
    with pytest.raises(EngineError, match="no Tinker service answers there"):
        connect(server, url="http://127.0.0.1:9")
    monkeypatch.setenv("TINKER_API_KEY", "tml-another-key")
    with pytest.raises(EngineError, match=r"TINKER_API_KEY: .* refuses this key \(status 401\)"):
        connect(server)
    monkeypatch.setenv("TINKER_API_KEY", "another-key")
    with pytest.raises(EngineError, match="TINKER_API_KEY: is not a key of a Tinker service"):
        connect(server)
    monkeypatch.delenv("TINKER_API_KEY")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EngineError, match=r"there is no key; set TINKER_API_KEY, or write it to \.env"):
        connect(server)


def test_an_account_without_credit_stops_the_run(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINKER_API_KEY", "tml-no-credit")
    with pytest.raises(Stopped, match="out of credit"):
        connect(server)
