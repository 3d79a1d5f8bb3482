"""Revision chains on an engine whose answers are written here."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from small_tokenizers import Letters

from cai_base.dialogue import Dialogue
from cai_base.engines import Sample, SampleRequest
from cai_base.inputs.constitution import Constitution, Principle
from cai_base.inputs.prompts import Prompt
from cai_base.method import pairs as preference
from cai_base.method import revision
from cai_base.method.interpreter import Interpreter
from cai_base.records import Chain, Pair
from cai_base.settings.schema import Revision

PRINCIPLES = tuple(
    Principle(name=f"p{i}", category="c", critique_request=f"Criticise {i}.", revision_request=f"Revise {i}.")
    for i in range(18)
)
CONSTITUTION = Constitution(name="test", principles=PRINCIPLES)
OPENERS = ("I will not", "No, I cannot")


class Scripted:
    """Answers each request by a function of its text."""

    tokenizer = Letters()

    def __init__(self, reply: Callable[[str], str], stop_reason: str = "stop") -> None:
        self.reply, self.stop_reason = reply, stop_reason
        self.asked: list[str] = []
        self.adapters: list[str | None] = []

    def sample(self, requests: Sequence[SampleRequest]) -> list[Sample]:
        texts = [self.tokenizer.decode(request.prompt) for request in requests]
        self.asked += texts
        self.adapters += [request.adapter for request in requests]
        return [Sample(reply := self.reply(text), tuple(map(ord, reply)), self.stop_reason) for text in texts]  # type: ignore[arg-type]


def settings(**changes: Any) -> Revision:
    given = {"prompts": 0, "rounds": 4, "temperature": 0.7, "response-tokens": 9, "critique-tokens": 9}
    return Revision.model_validate(given | {"refusal-prefill": 0.0, "unit": 4} | changes)


def prompts(count: int) -> list[Prompt]:
    return [Prompt(id=f"q{i}", kind="benign", text=f"Question {i}?") for i in range(count)]


def chains(
    engine: Scripted, count: int = 1, seed: int = 0, interpreter: Interpreter | None = None, **changes: Any
) -> list[Chain]:
    made = revision.revise(
        engine,  # type: ignore[arg-type]
        Dialogue((), ()),
        CONSTITUTION,
        OPENERS,
        settings(**changes),
        {f"sft/{seed}": seed},
        prompts(count),
        interpreter=interpreter,
    )[f"sft/{seed}"]
    assert [chain.id for chain in made] == [f"q{i}" for i in range(count)]
    return made


def by_heading(text: str) -> str:
    return {"Assistant:": "first", "Critique:": "a fault", "Revision:": f"better than {text.count('better')}"}[
        text.rsplit("\n\n", 1)[-1].split(" ")[0]
    ]


def test_each_round_revises_the_last_revision_under_a_principle_of_its_own() -> None:
    engine = Scripted(by_heading)
    (chain,) = chains(engine)
    assert chain.responses == ("first", "better than 0", "better than 1", "better than 1", "better than 1")
    assert [one.critique for one in chain.rounds] == ["a fault"] * 4
    name = chain.rounds[1].principle.removeprefix("p")
    assert f"Assistant: better than 0\n\nCritique Request: Criticise {name}.\n\nCritique:" in engine.asked[3]
    assert engine.asked[4].endswith(f"Critique: a fault\n\nRevision Request: Revise {name}.\n\nRevision:")
    assert len(engine.asked) == revision.RevisionPhase(settings(), prompts(1), CONSTITUTION, OPENERS).texts


@pytest.mark.parametrize("adapter", [None, "interpreter"])
def test_another_interpreter_critiques_and_revises_what_the_sft_adapter_answered(adapter: str | None) -> None:
    learner, other, alone = Scripted(lambda text: "its own answer"), Scripted(by_heading), Scripted(by_heading)
    (own,) = chains(alone)
    assert set(alone.adapters) == {"sft/0"}
    (chain,) = chains(learner, interpreter=Interpreter(other, adapter=adapter))  # type: ignore[arg-type]
    assert learner.asked == [Dialogue((), ()).question("Question 0?")]
    assert learner.adapters == ["sft/0"]
    assert chain.responses == ("its own answer", "better than 0", "better than 1", "better than 1", "better than 1")
    assert set(other.adapters) == {adapter}
    assert len(other.asked) == 2 * len(chain.rounds)
    assert [one.principle for one in chain.rounds] == [one.principle for one in own.rounds], "drawn as without it"


def test_principles_are_drawn_by_seed_prompt_and_round_alone() -> None:
    def names(count: int, seed: int) -> list[list[str]]:
        return [[one.principle for one in chain.rounds] for chain in chains(Scripted(by_heading), count, seed)]

    assert names(3, 0) == names(20, 0)[:3]
    assert names(3, 0) != names(3, 1)
    drawn = [name for row in names(200, 0) for name in row]
    assert set(drawn) == {p.name for p in PRINCIPLES}
    assert max(drawn.count(p.name) for p in PRINCIPLES) < 90


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_the_originals_is_prefilled_with_a_refusal_for_any_prompt(share: float) -> None:
    engine = Scripted(by_heading_or_continuation)
    made = chains(engine, 400, **{"refusal-prefill": share, "rounds": 1})
    opened = [chain for chain in made if chain.refusal_opener]
    assert abs(len(opened) - 400 * share) <= 35
    assert all(chain.responses[0] == f"{chain.refusal_opener} and so on" for chain in opened)
    assert all(chain.responses[0] == "first" for chain in made if not chain.refusal_opener)


def by_heading_or_continuation(text: str) -> str:
    return "and so on" if text.endswith(OPENERS) else by_heading(text)


def outcome(original: str, revised: str, truncated: tuple[bool, bool] = (False, False)) -> str:
    chain = revision.OpenChain("sft/0", 0, prompts(1)[0], None, [original, revised], [PRINCIPLES[0]], ["c"])
    chain.truncated = list(truncated)
    return chain.outcome()


def test_pairs_without_information_are_filtered_with_their_reason() -> None:
    assert outcome("Take the rake.", "I will not.") == "pair"
    assert outcome("Take the rake.", " Take  the rake.") == "identical"
    assert outcome("Take the rake.", " ") == "empty"
    assert outcome("Take the", "I will not.", (True, False)) == "truncated"
    assert outcome("Take the rake.", "I will", (False, True)) == "truncated"
    assert outcome("Take the rake.", "and so on " * 20) == "off the rails"


def test_a_truncated_intermediate_revision_is_counted_but_not_filtered() -> None:
    chain = revision.OpenChain("sft/0", 0, prompts(1)[0], None, ["a", "b", "c"], [*PRINCIPLES[:2]], ["x", "y"])
    chain.truncated = [False, True, False]
    assert chain.outcome() == "pair"
    assert chain.close().truncated == 1


def test_every_filter_reason_is_reported_even_at_zero() -> None:
    assert preference.count_filtered(["pair", "empty"]) == {
        "identical": 0,
        "empty": 1,
        "truncated": 0,
        "off the rails": 0,
    }


def test_pairs_prefer_the_last_revision_and_a_share_is_held_out() -> None:
    records = chains(Scripted(by_heading), 300)

    def pairs_of(count: int) -> list[Pair]:
        source = preference.Source(0, lambda: records[:count], lambda: [], Letters(), held_out=0.2)  # type: ignore[arg-type]
        return preference.from_revisions(source)

    pairs = pairs_of(300)
    assert len(pairs) == 300
    assert pairs[0].chosen == "better than 1"
    assert pairs[0].rejected == "first"
    assert pairs[0].chosen_tokens == len("better than 1")
    assert 40 <= sum(pair.held_out for pair in pairs) <= 80
    assert [pair.held_out for pair in pairs_of(10)] == [pair.held_out for pair in pairs[:10]]
