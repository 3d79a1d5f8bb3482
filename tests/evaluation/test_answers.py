"""Which draws the arms' evaluation answers are made with."""

from typing import Any

import pytest

from cai_base.dialogue import Dialogue
from cai_base.engines import Sample, SampleRequest
from cai_base.evaluation.judges import NoJudge
from cai_base.evaluation.tasks.prompts import answer
from cai_base.inputs.prompts import Prompt
from cai_base.settings.schema import Evaluation


class Remembers:
    """An engine that says nothing and keeps what it was asked."""

    def __init__(self) -> None:
        self.tokenizer: Any = self
        self.bos = ()
        self.requests: list[SampleRequest] = []

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def sample(self, requests: list[SampleRequest], listener: object = None) -> list[Sample]:
        self.requests += requests
        return [Sample("", (), "stop") for _ in requests]


@pytest.fixture
def ask() -> Any:
    """The draws, by seed and prompt, that an arm with these adapters is answered with."""
    prompts = [Prompt(id=name, kind="benign", text=f"Question {name}?") for name in ("a", "b")]
    settings = Evaluation.model_validate({"temperature": 1.0, "response-tokens": 8})

    def asked(models: dict[int, str | None]) -> dict[tuple[int, str], tuple[int, tuple[int, ...]]]:
        engine: Any = Remembers()
        answer(engine, Dialogue((), ()), settings, NoJudge(), prompts, models)
        keys = [(seed, prompt.id) for seed in models for prompt in prompts]
        assert [request.adapter for request in engine.requests] == [models[seed] for seed, _ in keys]
        return {key: (one.seed, one.prompt) for key, one in zip(keys, engine.requests, strict=True)}

    return asked


def test_all_arms_answer_a_prompt_with_the_same_draw(ask: Any) -> None:
    arms = [ask({0: name and f"{name}/0", 1: name and f"{name}/1"}) for name in (None, "sft", "dpo")]
    assert arms[0] == arms[1] == arms[2]


def test_no_two_seeds_and_no_two_prompts_share_a_draw(ask: Any) -> None:
    draws = [seed for seed, _ in ask({0: None, 1: None}).values()]
    assert len(set(draws)) == 4


def test_a_seed_answers_with_the_same_draw_alone_and_among_others(ask: Any) -> None:
    alone, among = ask({1: "sft/1"}), ask({0: "sft/0", 1: "sft/1"})
    assert alone.items() <= among.items()
