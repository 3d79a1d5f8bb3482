"""Damaged folders of studies: the plan, the results, and the files of the runs are read or refused in a sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fuzz.mutations import as_json, spoiled_bytes, spoiled_values
from fuzz.test_fuzz import many, refused_or_accepted
from fuzz.test_fuzz_runs import every_file, restored, vouch
from hypothesis import given
from hypothesis import strategies as st

from cai_base.records import StudyCell, StudyContrast, StudyPlan
from cai_base.report import study_page
from cai_base.store import to_json
from cai_base.studies import analysis, folder

RUN = "one"


@pytest.fixture(scope="module")
def study(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of one run, whose arms are its cells."""
    study = tmp_path_factory.mktemp("study") / "out"
    shutil.copytree(finished, folder.run_folder(study, RUN))
    arms = ("sft", "cai")
    plan = StudyPlan(
        schema=1,
        study="small",
        question="Does it matter?",
        about="",
        factors={"arm": arms},
        primary=("attack_success_rate",),
        cells=tuple(StudyCell(levels={"arm": arm}, arm=arm, run=RUN) for arm in arms),
        contrasts=(StudyContrast(name="cai - sft", first=(1,), second=(0,), scale=1),),
        runs={RUN: json.loads((finished / "config.json").read_bytes())},
    )
    (study / folder.PLAN).write_bytes(to_json(plan.dump()))
    (study / folder.RESULTS).write_bytes(to_json(analysis.collect(study, {}).dump()))
    study_page.write(study)
    return study


def resumed(study: Path) -> None:
    """What a worker and the command read of a plan, and of the runs."""
    plan = folder.read_plan(study)
    for name in plan.runs:
        plan.settings(name)
    analysis.collect(study, {})


READERS: dict[str, Callable[[Path], object]] = {
    folder.PLAN: resumed,
    folder.RESULTS: lambda study: (study_page.table(study), study_page.write(study)),
}


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_plan_or_result_of_a_study_is_refused_in_a_sentence(study: Path, name: str) -> None:
    file = study / name
    valid = file.read_bytes()
    value: Any = json.loads(valid)

    @many(30)
    @given(data=st.data())
    def damaged(data: st.DataObject) -> None:
        by_value = data.draw(st.sampled_from((True, True, False)))
        content = as_json(data.draw(spoiled_values(value))) if by_value else data.draw(spoiled_bytes(valid))
        file.write_bytes(content)
        try:
            refused_or_accepted(lambda: READERS[name](study))
        finally:
            file.write_bytes(valid)

    damaged()
    assert refused_or_accepted(lambda: READERS[name](study))


def test_a_damaged_run_of_a_study_is_refused_in_a_sentence_or_not_needed(study: Path, finished: Path) -> None:
    run = folder.run_folder(study, RUN)
    names = every_file(finished)

    @many(20)
    @given(data=st.data())
    def damaged(data: st.DataObject) -> None:
        name, forged = data.draw(st.sampled_from(names)), data.draw(st.booleans())
        (run / name).write_bytes(data.draw(spoiled_bytes((finished / name).read_bytes())))
        if forged and name != "manifest.json":
            vouch(run, name)
        try:
            refused_or_accepted(lambda: analysis.collect(study, {}))
        finally:
            restored(run, finished, name, "manifest.json")

    damaged()
    assert refused_or_accepted(lambda: analysis.collect(study, {}))
