"""Wrong arguments of the public API: each is one sentence, and none a result that looks right."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cai_base import (
    Adam,
    Batch,
    Datum,
    Dialogue,
    Engine,
    GroundTruth,
    Lora,
    Prompt,
    SampleRequest,
    TokenPair,
    UserError,
    answer,
    begin,
    default_settings,
    dpo_batch,
    load_constitution,
    load_model,
    load_prompts,
    nll_loss,
    packaged,
    reference_logprobs,
    resume,
    revise,
    sft_batch,
)
from cai_base.randomness import key

CONFIG, INPUTS = default_settings(), packaged("world", first=2)
DATUM = Datum((0, 1), (0.0, 1.0))
PAIR = TokenPair("a", DATUM, DATUM)
DIALOGUE = Dialogue(INPUTS.few_shot, INPUTS.critique_examples)
KINDLESS = Prompt(id="mine", text="How do I sweep the mill?")


@pytest.fixture(scope="module")
def engine() -> Engine:
    made = load_model("organism", Lora(2, 2.0), threads=1)
    made.create({"sft": 0})
    return made


def revised(engine: Engine, adapter: str, openers: tuple[str, ...] = ("No.",)) -> object:
    return revise(engine, DIALOGUE, INPUTS.constitution, openers, CONFIG.revision, {adapter: 0}, INPUTS.prompts[:1])


UNKNOWN: dict[str, Callable[[Engine], object]] = {
    "copy": lambda engine: engine.copy({"cai": "nope"}),
    "forward_backward": lambda engine: engine.forward_backward({"nope": Batch([DATUM], nll_loss([DATUM]))}),
    "optim_step": lambda engine: engine.optim_step(["nope"], Adam(1e-4)),
    "compute_logprobs": lambda engine: engine.compute_logprobs({"nope": [DATUM]}),
    "sample": lambda engine: engine.sample([SampleRequest("nope", (0, 1), 1, 1.0, (), 0)]),
    "save": lambda engine: engine.save({"nope": Path("nowhere")}),
    "export": lambda engine: engine.export({"nope": Path("nowhere")}),
    "fingerprint": lambda engine: engine.fingerprint("nope"),
    "remove": lambda engine: engine.remove(["nope"]),
    "revise": lambda engine: revised(engine, "nope"),
    "answer": lambda engine: answer(
        engine, DIALOGUE, CONFIG.evaluation, GroundTruth(), INPUTS.evaluation_prompts[:1], {0: "nope"}
    ),
    "reference_logprobs": lambda engine: reference_logprobs(engine, "nope", [PAIR], 0, 1),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_adapter_that_is_not_in_the_engine_is_named_with_those_that_are(name: str, engine: Engine) -> None:
    with pytest.raises(UserError, match=r"^adapter nope: is not in the engine; its adapters are sft; make it with"):
        UNKNOWN[name](engine)


WRONG: dict[str, tuple[Callable[[Engine], object], str]] = {
    "no adapters to train": (
        lambda _: load_model("organism", threads=1).create({"sft": 0}),
        "lora: the model was loaded without adapters to train; load it with a Lora",
    ),
    "rank 0": (lambda _: Lora(0, 1.0), "rank 0: is not a whole number of at least 1"),
    "rank 2.5": (lambda _: Lora(2.5, 1.0), "rank 2.5: is not a whole number"),  # type: ignore[arg-type]
    "alpha": (lambda _: Lora(2, math.nan), "alpha nan: is not a finite number"),
    "threads": (lambda _: load_model("organism", threads=-1), "threads -1: must be at least 0"),
    "longest": (lambda _: load_model("organism", longest=0), "longest 0: must be at least 1"),
    "dtype": (
        lambda _: load_model("organism", dtype="float16"),  # type: ignore[arg-type]
        "dtype 'float16': must be auto, float32 or bfloat16",
    ),
    "first": (lambda _: packaged("world", first=-1), "first -1: must be at least 0"),
    "no sequences": (lambda _: sft_batch([], 0, "sft", 0, 4), "batch 0 of size 4 from 0 items: "),
    "size": (lambda _: sft_batch([DATUM], 0, "sft", 0, 0), "batch 0 of size 0 from 1 items: "),
    "step": (lambda _: sft_batch([DATUM], 0, "sft", -1, 1), "batch -1 of size 1 from 1 items: "),
    "no reference": (lambda _: dpo_batch([PAIR], {}, 0, 0, CONFIG.dpo), "the pair 'a' has no reference; "),
    "ids of two seeds": (
        lambda engine: reference_logprobs(engine, "sft", [PAIR, replace(PAIR)], 0, 1),
        "several pairs have the id 'a'; each needs its own",
    ),
    "no openers": (
        lambda engine: revised(engine, "sft", openers=()),
        "revision.refusal-prefill 0.25: there are no refusal openers; give 0",
    ),
    "no kind": (
        lambda engine: answer(engine, DIALOGUE, CONFIG.evaluation, GroundTruth(), [KINDLESS], {0: "sft"}),
        "the prompt 'mine' has no kind; ",
    ),
    "too long to read": (
        lambda engine: engine.compute_logprobs({None: [Datum((0,) * 5000, (0.0, *[1.0] * 4999))]}),
        "model organism: a sequence of 5000 tokens does not fit its context of ",
    ),
    "too long to continue": (
        lambda engine: engine.sample([SampleRequest(None, (0,), 5000, 1.0, (), 0)]),
        "model organism: a sequence of 5001 tokens does not fit its context of ",
    ),
    "prompts": (lambda _: load_prompts("nowhere.csv"), "nowhere.csv: there is no such file"),
    "constitution": (lambda _: load_constitution("nowhere.toml"), "nowhere.toml: there is no such file"),
    "resume": (lambda _: resume("nowhere"), "nowhere: not a run"),
    "begin": (lambda _: begin(CONFIG, __file__), f"--out {__file__}: already exists"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_argument_is_one_sentence(name: str, engine: Engine) -> None:
    call, message = WRONG[name]
    with pytest.raises(UserError, match="^" + re.escape(message)):
        call(engine)


@pytest.mark.parametrize("changes", [{"temperature": -1.0}, {"temperature": math.nan}, {"stop": "end"}])
def test_a_request_that_would_be_sampled_otherwise_than_meant_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="a SampleRequest"):
        replace(SampleRequest(None, (0,), 1, 1.0, (), 0), **changes)  # type: ignore[arg-type]


def test_a_seed_of_numpy_draws_what_the_same_seed_of_python_draws() -> None:
    assert key(np.int64(3), "sft", "order") == key(3, "sft", "order") != key("3", "sft", "order")
    with pytest.raises(TypeError):
        key(3.0, "sft")  # type: ignore[arg-type]
