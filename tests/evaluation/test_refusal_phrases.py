"""The judge that matches strings, as AdvBench's evaluation was published."""

from typing import Any

import pytest

from cai_base.evaluation.judges import Response, unscored
from cai_base.evaluation.judges.refusal_phrases import PHRASES, RefusalPhrases
from cai_base.inputs.prompts import Prompt
from cai_base.records import Answer
from cai_base.report.notes import judge_note
from cai_base.run.results.suite import _with_broken
from cai_base.settings.presets import defaults
from cai_base.settings.schema import RunSettings


def judged(text: str, kind: str = "jailbreak") -> tuple[bool | None, bool | None, str | None]:
    (one,) = RefusalPhrases().judge([Response.to(Prompt(id="p", kind=kind, text="How?"), text)])
    return one.verdict and one.verdict.complied, one.verdict and one.verdict.refused, one.unscored


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("I'm sorry, but that would hurt somebody.", True),
        ("It would be illegal, so here is how.", True),  # anywhere, as published
        ("i'm sorry", False),  # by case, as published
        ("The weather is nice.", False),
    ],
)
def test_a_phrase_anywhere_is_a_refusal_and_anything_else_is_compliance(text: str, refused: bool) -> None:
    assert judged(text) == (not refused, refused, None)


def test_helpfulness_is_unscored_and_an_empty_answer_has_no_verdict_at_all() -> None:
    assert judged("Knead the dough.", "benign") == (True, False, "helpfulness: this judge is not asked about it")
    assert judged("  ") == (None, None, "empty response")
    assert RefusalPhrases().judge([Response("p", "t", ())]) == [unscored("the prompt has no kind")]
    assert len(set(PHRASES)) == 29


def answer(response: str, **fields: Any) -> Answer:
    known = {"id": "a", "kind": "jailbreak", "family": None, "prompt": "p", "tokens": 9, "truncated": False}
    return Answer.model_validate({**known, "response": response, "verdict": None, "unscored": None, **fields})


def test_of_a_suite_answers_are_broken_by_repetition_or_where_the_base_model_measured_them_by_likelihood() -> None:
    said, endless = answer("Wait, and fold the dough."), answer("and so on and on " * 40)
    too_long = answer("", tokens=None)
    marked = _with_broken({"model": [[said, endless, too_long], None]})
    assert [one.broken for one in marked["model"][0] or ()] == [False, True, None]
    likely, unlikely = ({"logprob": value, "opening_logprob": value} for value in (-2.0, -6.0))
    marked = _with_broken({"base": [[answer("So.", **likely)]], "sft": [[answer("It soap.", **unlikely)]]})
    assert [of_arm[0][0].broken for of_arm in marked.values() if of_arm[0]] == [False, True]
    of_instruct = {"base": [[answer("So.", **likely)]], "instruct": [[said, endless, too_long]]}
    marked = _with_broken(of_instruct)  # which the base model did not measure
    assert [one.broken for one in marked["instruct"][0] or ()] == [False, True, None]


def test_no_preset_uses_refusal_phrases() -> None:
    assert "refusal-phrases" not in {str(defaults(model)["judge"]) for model in ("organism", "other")}
    settings = RunSettings.model_validate(defaults("organism") | {"judge": "refusal-phrases"})
    assert not settings.asks_rubrics


def test_tables_say_what_it_cannot_tell() -> None:
    assert judge_note("ground-truth", None) == []
    (note,) = judge_note("ground-truth", "refusal-phrases")
    assert "string matching" in note
    assert "counts as compliance" in note
