"""Every kind of judge, prompt and rubric fits the others."""

import pytest

from cai_base.evaluation.judges import load, unscored
from cai_base.inputs import gather
from cai_base.inputs.kinds import ANSWER_FILES, PROMPT_KINDS
from cai_base.inputs.rubrics import TASKS, packaged, parts_of, rubrics_for
from cai_base.progress import Progress
from cai_base.records import VERDICT_PARTS, Verdict
from cai_base.settings import default_settings
from cai_base.settings.judges import JUDGE_KINDS, JudgeKind


def test_every_kind_of_judge_is_loaded_under_the_name_that_was_given() -> None:
    for name, kind in JUDGE_KINDS.items():
        given = f"{name}:some-model" if kind.takes else name
        url = "http://localhost:1/v1" if kind.at_url else None
        settings = default_settings("organism", judge=given, judge_url=url)
        judges = load.load_judges(settings.judge_choices, gather(settings).rubrics, None, Progress())
        assert judges["judge"].name == given


def test_a_kind_of_judge_that_nothing_loads_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = default_settings("organism", judge="hf:some-model")
    monkeypatch.setitem(JUDGE_KINDS, "hf", JudgeKind("a chat model", "PATH", "abacus", "rubrics"))
    with pytest.raises(NotImplementedError, match="nothing loads a judge that runs 'abacus' and grades by rubrics"):
        load.load_judges(settings.judge_choices, gather(settings).rubrics, None, Progress())


def test_every_kind_of_prompt_is_judged_under_rubrics_that_are_packaged() -> None:
    assert {task for kind in PROMPT_KINDS.values() for task in kind.rubrics} <= set(TASKS) <= set(packaged())
    assert set(rubrics_for(())) == set(TASKS)
    assert {kind.file for kind in PROMPT_KINDS.values()} == set(ANSWER_FILES)


def test_every_part_of_a_verdict_says_which_rubrics_give_it() -> None:
    assert set(VERDICT_PARTS) == set(Verdict.model_fields)
    assert {part for task in TASKS for parts in parts_of(task) for part in parts} == set(VERDICT_PARTS)


@pytest.mark.parametrize("reason", ["empty response", "no judge"])
def test_a_response_without_a_verdict_is_stored_with_its_reason(reason: str) -> None:
    assert unscored(reason).dump() == {"verdict": None, "unscored": reason}
