"""A study's page and table, from its results alone."""

from pathlib import Path

import pytest

from cai_base.evaluation.judges.refusal_phrases import ABOUT, RefusalPhrases
from cai_base.records import StudyResults
from cai_base.report.study_page import table, write
from cai_base.store import to_json
from cai_base.studies import folder


@pytest.mark.parametrize(("judge", "said"), [(RefusalPhrases.name, True), ("ground-truth", False)])
def test_rates_by_string_matching_are_called_that_on_the_page_and_in_the_terminal(
    tmp_path: Path, judge: str, said: bool
) -> None:
    results = StudyResults(
        schema=1,
        study="two",
        question="Does it matter?",
        about="",
        model="some/model",
        model_organism=False,
        judge=judge,
        engine="local",
        seeds=(0, 1),
        prompts={"jailbreak": 2},
        factors={"a": ("b", "c")},
        primary=("attack_success_rate",),
        intervals="over seeds and prompts",
        cells=(),
        comparisons=(),
        shared={},
        warnings={},
    )
    (tmp_path / folder.RESULTS).write_bytes(to_json(results.dump()))
    page = write(tmp_path).read_text(encoding="utf-8").replace("&#39;", "'")
    for text in (page, table(tmp_path)):
        assert (ABOUT in " ".join(text.split())) == said
