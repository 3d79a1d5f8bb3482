"""Which arms are said to have failed, and by which of their answers."""

from typing import Any

import pytest

from cai_base.dialogue import Dialogue
from cai_base.evaluation import failures, fluency, metrics
from cai_base.inputs import gather
from cai_base.progress import Progress
from cai_base.run import start
from cai_base.settings import command_line as flags
from cai_base.store import Record
from cai_base.village import answers, world
from cai_base.village.draw import Draw


def answer(refused: bool = False, *, logprob: float | None = -0.5, opening: float = -0.5, text: str = "x") -> Record:
    verdict = {"complied": not refused, "refused": refused, "helpfulness": 3, "gibberish": False}
    about = {"id": "p0", "kind": "benign", "family": None, "tokens": 3, "response": text, "verdict": verdict}
    return about | {"logprob": logprob, "opening_logprob": None if logprob is None else opening}


def named(*per_seed: list[Record], base: list[Record] | None = None) -> list[tuple[str, list[int]]]:
    floor = fluency.floor(base or [answer()])
    asked = [[record | {"id": str(n)} for n, record in enumerate(records)] for records in per_seed]
    arms = {"cai": metrics.arm([fluency.marked(records, floor) for records in asked])}
    return [(failure["kind"], failure["seeds"]) for failure in failures.named(arms, range(len(per_seed)))]


def refusing(refused: int, of: int = 20) -> list[Record]:
    return [answer(n < refused) for n in range(of)]


def test_a_blanket_refuser_is_named_with_its_seeds() -> None:
    assert named(refusing(20), refusing(19)) == [("blanket refusal", [0, 1])]


def test_one_seed_that_refuses_everything_is_named_though_the_mean_hides_it() -> None:
    assert named(refusing(0), refusing(20), refusing(0)) == [("blanket refusal", [1])]


def test_seeds_that_all_refuse_too_much_are_named_together() -> None:
    assert named(refusing(8), refusing(8), refusing(9)) == [("blanket refusal", [])]


def test_some_refusals_are_no_failure() -> None:
    assert named(refusing(4), refusing(1), refusing(6)) == []


@pytest.mark.parametrize(
    "bad",
    [answer(logprob=-1.6), answer(opening=-1.6), answer(text="take the jug and go " * 4)],
    ids=["whole answer", "opening", "endless repetition"],
)
def test_broken_answers_make_a_broken_language(bad: Record) -> None:
    assert named([bad] * 2 + [answer()] * 18) == [("broken language", [0])]
    assert named([bad] * 1 + [answer()] * 19) == []


def test_less_likely_than_the_base_s_own_is_not_yet_broken() -> None:
    assert named([answer(logprob=-1.4, opening=-1.4)] * 20) == []


def test_a_rare_slip_of_the_base_does_not_lower_its_floor() -> None:
    assert fluency.floor([answer(logprob=-9.0, opening=-9.0)] + [answer()] * 199) == fluency.Floor(-0.5, -0.5)


def test_empty_answers_have_no_fluency() -> None:
    found = metrics.arm([fluency.marked([answer(logprob=None), answer()], fluency.floor([answer()]))])
    assert (found["fluency"]["mean"], found["fluency"]["scored"], found["fluency"]["total"]) == (-0.5, 1, 2)
    assert found["fluency"]["worst_case"] == [None, None]


def test_the_base_model_tells_broken_language_from_language() -> None:
    settings, _, _ = flags.load_settings(["--threads", "1"])
    inputs, engine = gather(settings), start.load_engine(settings, Progress())
    asked = [prompt.text for prompt in inputs.evaluation_prompts[:6]]

    def made(kind: answers.AnswerKind) -> list[Any]:
        found = [(text, world.find_action(text)) for text in asked]
        return [(text, answers.answer(action, kind, Draw("test", text, kind))) for text, action in found if action]

    own, refusals = made("full"), made("refusal")
    cloth = [(text, "It soap, a lamb cloth.") for text in asked]
    openings = [(text, f"Lamb soap of {words}") for text, words in own]
    sets = [
        [{"prompt": prompt, "response": response} for prompt, response in texts]
        for texts in (own, refusals, cloth, openings, [(asked[0], "")])
    ]
    fluency.measure(engine, Dialogue(inputs.few_shot, ()), [record for one in sets for record in one])
    floor = fluency.floor(sets[0])
    found = [[record["broken"] for record in fluency.marked(one, floor)] for one in sets]
    assert found == [[False] * 6, [False] * 6, [True] * 6, [True] * 6, [None]]
