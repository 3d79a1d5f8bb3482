"""Responses: greedy ones against transformers' `generate`, drawn ones against the softmax, and where they end."""

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from batches import stir, tokens
from peft import PeftModel
from scipy.stats import chisquare
from transformers import AutoModelForCausalLM, AutoTokenizer

from cai_base.engines import SampleRequest
from cai_base.engines.local import LocalEngine
from cai_base.engines.local.sampling import Drawing, Ends, draw

Make = Callable[..., LocalEngine]


def prompts(seed: int, n: int, prefix: int = 12) -> list[tuple[int, ...]]:
    few_shot = tokens(np.random.default_rng(0), prefix)
    generator = np.random.default_rng(seed)
    return [few_shot + tokens(generator, int(generator.integers(1, 10))) for _ in range(n)]


def request(adapter: str | None, prompt: tuple[int, ...], seed: int = 0, **changes: object) -> SampleRequest:
    fields: dict[str, object] = {"max_tokens": 20, "temperature": 1.0, "stop": (), **changes}
    return SampleRequest(adapter, prompt, seed=seed, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["llama", "qwen3", "windowed", "large"])
def test_a_prefix_kept_once_an_adapter_changes_no_token(engine: Make, kind: str) -> None:
    ours = engine(kind)
    ours.create({"a": 1, "b": 2})
    stir(ours, "a", "b")
    asked = [request(name, prompt, i) for name in ("a", "b") for i, prompt in enumerate(prompts(1, 4))]
    samples = ours.sample(asked)
    assert ours.findings().layout.cache == "shared"
    for cache in ("rows", "transformers"):
        ours._layout = replace(ours._layout, cache=cache)  # type: ignore[arg-type]
        assert [sample.tokens for sample in ours.sample(asked)] == [sample.tokens for sample in samples]


@pytest.mark.parametrize("kind", ["llama", "windowed"])
def test_a_prefix_kept_from_the_batch_before_changes_no_token_and_goes_with_the_weights(
    engine: Make, kind: str
) -> None:
    asked = [request(name, prompt, i) for name in ("a", "b") for i, prompt in enumerate(prompts(1, 4))]

    def drawn(one: LocalEngine) -> list[tuple[int, ...]]:
        return [sample.tokens for sample in one.sample(asked)]

    def stirred(times: int) -> LocalEngine:
        one = engine(kind)
        one.create({"a": 1, "b": 2})
        for _ in range(times):
            stir(one, "a", "b")
        return one

    ours = stirred(1)
    first = drawn(ours)
    assert drawn(ours) == first == drawn(stirred(1))
    stir(ours, "a", "b")
    assert drawn(ours) == drawn(stirred(2)) != first


@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral", "windowed", "large"])
def test_at_temperature_0_responses_are_those_of_generate(
    engine: Make, folder: Callable[[str], str], tmp_path: Path, kind: str
) -> None:
    ours = engine(kind)
    ours.create({"a": 1, "b": 2})
    stir(ours, "a", "b")
    ours.export({name: tmp_path / name for name in ("a", "b")})
    asked = [(name, prompt) for i, name in enumerate((None, "a", "b")) for prompt in prompts(i, 4 - i)]
    samples = ours.sample([request(name, prompt, max_tokens=30, temperature=0.0) for name, prompt in asked])
    decoder = AutoTokenizer.from_pretrained(folder(kind))
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder(kind)), tmp_path / "a", "a")
    model.load_adapter(tmp_path / "b", "b")
    for (name, prompt), sample in zip(asked, samples, strict=True):
        given = {"do_sample": False, "max_new_tokens": 30, "pad_token_id": 0}
        ids = {"input_ids": torch.tensor([prompt]), "attention_mask": torch.ones(1, len(prompt), dtype=torch.long)}
        if name is None:
            with model.disable_adapter():
                out = model.generate(**ids, **given)
        else:
            model.set_adapter(name)
            out = model.generate(**ids, **given)
        wanted = out[0, len(prompt) :].tolist()
        assert list(sample.tokens) == wanted
        assert sample.text == decoder.decode(wanted, skip_special_tokens=True)
        assert sample.stop_reason == ("stop" if wanted[-1] == 1 else "length")
    assert len({sample.tokens for sample in samples}) > 4


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
def test_drawn_frequencies_are_the_softmax(engine: Make, temperature: float) -> None:
    ours = engine()
    prompt = prompts(0, 1)[0]
    drawn = ours.sample([request(None, prompt, seed, max_tokens=3, temperature=temperature) for seed in range(3000)])
    for place in range(3):
        before = [prompt + sample.tokens[:place] for sample in drawn if len(sample.tokens) > place]
        with torch.inference_mode():
            logits = ours._model(torch.tensor(before)).logits[:, -1].double()
        expected = (logits / temperature).softmax(dim=-1).sum(dim=0).numpy()
        drawn_here = [sample.tokens[place] for sample in drawn if len(sample.tokens) > place]
        counts = np.bincount(drawn_here, minlength=len(expected))
        common = expected >= 5
        assert common.sum() > 20
        observed = [*counts[common], counts[~common].sum()]
        assert chisquare(observed, [*expected[common], expected[~common].sum()]).pvalue > 1e-3


def test_a_draw_is_where_the_cumulative_probability_passes_the_uniform_number() -> None:
    logits = torch.log(torch.tensor([[0.0, 0.1, 0.0, 0.2, 0.7]])).expand(6, -1)
    uniforms = torch.tensor([0.0, 0.0999, 0.1001, 0.2999, 0.3001, 1 - 1e-16], dtype=torch.float64)
    assert draw(logits, torch.ones(6, dtype=torch.float64), uniforms).tolist() == [1, 1, 3, 3, 4, 4]
    assert draw(logits, torch.zeros(6, dtype=torch.float64), uniforms).tolist() == [4] * 6


LARGE = 20_000
"""A vocabulary that is drawn from in blocks."""


def large_logits() -> torch.Tensor:
    """Peaks in few tokens, a long tail, tokens that cannot be drawn, and no whole number of blocks."""
    generator = torch.Generator().manual_seed(3)
    logits = 2.0 * torch.randn(LARGE, generator=generator)
    logits[[7, 511, 512, 9_999, LARGE - 3]] += 9.0
    logits[torch.randperm(LARGE, generator=generator)[:4000]] = -torch.inf
    logits[-2:] = -torch.inf
    return logits


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
def test_frequencies_of_20000_draws_from_a_large_vocabulary_are_the_softmax(temperature: float) -> None:
    n, logits = 20_000, large_logits()
    uniforms = torch.from_numpy(np.random.default_rng(5).random(n))
    chunks = [
        draw(logits.repeat(len(part), 1), torch.full((len(part),), temperature, dtype=torch.float64), part)
        for part in uniforms.split(500)
    ]
    counts = np.bincount(torch.cat(chunks).numpy(), minlength=LARGE)
    expected = n * (logits.double() / temperature).softmax(dim=-1).numpy()
    assert counts[expected == 0].sum() == 0
    common = expected >= 5
    assert common.sum() > 20
    observed = [*counts[common], counts[~common].sum()]
    assert chisquare(observed, [*expected[common], expected[~common].sum()]).pvalue > 1e-3


def test_a_draw_from_a_large_vocabulary_is_that_from_the_whole_distribution() -> None:
    logits = large_logits()
    uniforms = torch.from_numpy(np.random.default_rng(6).random(500))
    uniforms[:2] = torch.tensor([0.0, 1 - 1e-16], dtype=torch.float64)
    drawn = draw(logits.repeat(500, 1), torch.ones(500, dtype=torch.float64), uniforms)
    cumulative = logits.double().softmax(dim=-1).cumsum(dim=-1)
    wanted = torch.searchsorted(cumulative, uniforms * cumulative[-1], right=True)
    assert (drawn[1:] == wanted[1:]).float().mean() > 0.99
    low = torch.where(drawn > 0, cumulative[drawn - 1], 0.0)
    assert ((low - 1e-6 <= uniforms) & (uniforms <= cumulative[drawn] + 1e-6)).all(), "elsewhere it is next to it"
    assert logits[drawn].isfinite().all()


@pytest.mark.parametrize("vocabulary", [300, LARGE])
def test_sampling_from_a_model_with_nan_logits_gives_some_token(vocabulary: int) -> None:
    logits = torch.full((2, vocabulary), torch.nan)
    drawn = draw(logits, torch.ones(2, dtype=torch.float64), torch.tensor([0.2, 0.9], dtype=torch.float64))
    assert ((drawn >= 0) & (drawn < vocabulary)).all()


def test_a_draw_from_a_large_vocabulary_does_not_depend_on_the_other_rows() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = 3.0 * torch.randn(64, LARGE, generator=generator)
    uniforms = torch.from_numpy(np.random.default_rng(7).random(64))
    temperatures = torch.tensor([0.0, 0.6, 1.0, 1.4], dtype=torch.float64).repeat(16)
    together = draw(logits.clone(), temperatures, uniforms)
    assert together.tolist() == [
        int(draw(logits[i : i + 1].clone(), temperatures[i : i + 1], uniforms[i : i + 1])) for i in range(64)
    ]
    assert together[::4].tolist() == logits[::4].argmax(dim=-1).tolist()


@pytest.mark.parametrize("kind", ["llama", "windowed"])
def test_a_draw_does_not_depend_on_what_else_is_in_the_batch(engine: Make, kind: str) -> None:
    ours = engine(kind, rows=17)
    ours.create({"a": 1, "b": 2, "c": 3})
    stir(ours, "a", "b", "c")
    generator = np.random.default_rng(0)
    requests = [
        request(name, prompt, int(generator.integers(1000)), max_tokens=int(generator.integers(1, 30)), temperature=t)
        for name, n in {"a": 9, None: 3, "b": 20, "c": 1}.items()
        for prompt, t in zip(prompts(n, n, prefix=5), generator.choice([0.0, 0.8, 1.3], n).tolist(), strict=True)
    ]
    requests = [requests[i] for i in generator.permutation(len(requests))]
    together = ours.sample(requests)
    assert together == [ours.sample([one])[0] for one in requests]
    assert len({len(sample.tokens) for sample in together}) > 10, "rows finish at different times"
    assert together == engine_with(engine, kind, 256, ours).sample(requests)


def engine_with(engine: Make, kind: str, rows: int, like: LocalEngine) -> LocalEngine:
    """Another engine with the same adapters."""
    made = engine(kind, rows=rows)
    for name, state in like._bank.adapters.items():
        made._bank.put(name, state.parameters)
    return made


def test_packing_changes_no_sample(engine: Make) -> None:
    requests = [request(None, prompt, i) for i, prompt in enumerate(prompts(1, 8))]
    assert engine(pack=True).sample(requests) == engine(pack=False).sample(requests)


def test_long_responses_are_drawn_fewer_at_a_time(engine: Make) -> None:
    ours = engine()
    requests = [request(None, prompt, i) for i, prompt in enumerate(prompts(1, 8))]
    wanted = ours.sample(requests)
    longest = max(len(r.prompt) + r.max_tokens for r in requests)
    ours._sampler._cache_bytes = 3 * longest * 2 * 2 * 2 * 8 * 4  # layers, keys and values, heads, features, bytes
    batches = list(ours._sampler._batches(requests))
    assert [len(batch[None]) for batch in batches] == [3, 3, 2]
    assert ours.sample(requests) == wanted


@pytest.mark.parametrize("stop", ["e", "he", "the", "re", " b"])
def test_neither_a_stop_nor_anything_after_it_is_in_the_text(engine: Make, stop: str) -> None:
    ours = engine()
    asked = [(prompt, seed) for seed, prompt in enumerate(prompts(2, 150))]
    free = ours.sample([request(None, p, seed, max_tokens=30) for p, seed in asked])
    stopped = ours.sample([request(None, p, seed, max_tokens=30, stop=("never!!", stop)) for p, seed in asked])
    hits = 0
    for one, other in zip(free, stopped, strict=True):
        assert stop not in other.text
        assert one.tokens[: len(other.tokens)] == other.tokens
        if stop in one.text:
            hits += 1
            assert other.stop_reason == "stop"
            assert other.text == one.text[: one.text.index(stop)]
            assert stop in ours.tokenizer.decode(other.tokens), "the tokens are those drawn, the stop's included"
            assert stop not in ours.tokenizer.decode(other.tokens[:-1]), "nothing is drawn after the stop"
        else:
            assert other == one
    assert hits >= 5


def add_all(text_or_tokens: str | list[int], ours: LocalEngine, *stop: str, max_tokens: int = 50) -> Drawing:
    """A drawing that gets these tokens until it ends."""
    drawing = Drawing(request(None, (5,), max_tokens=max_tokens, stop=stop), Ends(ours.tokenizer))
    given = ours.tokenizer.encode(text_or_tokens) if isinstance(text_or_tokens, str) else text_or_tokens
    for token in given:
        drawing.add(token)
        if drawing.sample is not None:
            break
    return drawing


def test_a_stop_of_many_tokens_is_found_whole(engine: Make) -> None:
    ours = engine()
    assert len(ours.tokenizer.encode("\nQuestion é☃:")) > 10
    over = add_all("so it is.\nQuestion é☃: and more", ours, "\nQuestion é☃:").finished()
    assert (over.text, over.stop_reason) == ("so it is.", "stop")


def test_the_earliest_of_several_stops_counts(engine: Make) -> None:
    ours = engine()
    assert add_all("one two three", ours, "two three", "o thr").finished().text == "one tw"
    assert add_all("one two three", ours, "ee", "hree").finished().text == "one two t"


def test_a_stop_after_a_special_token_is_not_in_the_text(engine: Make) -> None:
    ours = engine()
    inside = [*ours.tokenizer.encode("warm\nU"), *[0] * 12, *ours.tokenizer.encode("ser: b")]
    assert add_all(inside, ours, "\nUser:", max_tokens=len(inside)).finished().text == "warm"


def test_the_end_of_text_ends_a_response(engine: Make) -> None:
    ours = engine()
    over = add_all([*ours.tokenizer.encode("so it is"), 1], ours).finished()
    assert (over.text, over.stop_reason, over.tokens[-1]) == ("so it is", "stop", 1)


def test_a_response_is_no_longer_than_asked_for(engine: Make) -> None:
    ours = engine()
    drawn = ours.sample([request(None, prompts(0, 1)[0], seed, max_tokens=7) for seed in range(50)])
    assert {len(sample.tokens) for sample in drawn if sample.stop_reason == "length"} == {7}


def test_no_requests_give_no_samples(engine: Make) -> None:
    assert engine().sample([]) == []


@pytest.mark.parametrize("wrong", [{"prompt": ()}, {"max_tokens": 0}, {"stop": ("a", "")}])
def test_a_request_for_zero_tokens_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="SampleRequest"):
        request(None, **{"prompt": (5,), **wrong})  # type: ignore[arg-type]


def test_an_adapter_that_is_removed_leaves_the_memory_though_a_prefix_was_computed_under_it(engine: Make) -> None:
    ours = engine("llama")
    ours.create({"a": 1, "b": 2})
    stir(ours, "a", "b")
    asked = [request(name, prompt, i) for name in ("a", "b") for i, prompt in enumerate(prompts(1, 4))]
    samples = ours.sample(asked)
    parameters = weakref.ref(ours._bank.adapters["a"].parameters)
    assert len(ours._sampler._prefixes._entries) == 1
    ours.create({"a": 1, "c": 3})  # in the place of the first one
    gc.collect()
    assert parameters() is None
    ours.sample([request("c", prompt, i) for i, prompt in enumerate(prompts(2, 4, prefix=14))])
    assert len(ours._sampler._prefixes._entries) == 1, "columns that no batch can use are not kept"
    ours.create({"a": 1, "b": 2})
    stir(ours, "a", "b")
    assert [one.tokens for one in ours.sample(asked)] == [one.tokens for one in samples]
