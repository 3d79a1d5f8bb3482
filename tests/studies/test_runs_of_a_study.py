"""The runs in a study's folder are those of its plan: another one in their place is refused, never taken for theirs."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cai_base.errors import UserError
from cai_base.progress import Progress
from cai_base.records import StudyCell, StudyContrast, StudyPlan
from cai_base.store import to_json
from cai_base.studies import analysis, conduct, folder, worker
from cai_base.studies.shared_stages import Stages

BETAS = {"low": 0.05, "high": 0.2}


def store(run: Path, name: str, content: Any) -> None:
    """Put a file of JSON into a run, with its hash, as if the run had stored it."""
    (run / name).write_bytes(to_json(content))
    manifest = json.loads((run / "manifest.json").read_bytes())
    data = to_json(content)
    manifest["files"][name] |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    if name == "config.json":
        manifest["config"] = content
    (run / "manifest.json").write_bytes(to_json(manifest))


@pytest.fixture
def study(finished: Path, tmp_path: Path) -> Path:
    """A study of two finished runs, which differ in a setting."""
    config = json.loads((finished / "config.json").read_bytes())
    configs = {name: config | {"dpo": config["dpo"] | {"beta": beta}} for name, beta in BETAS.items()}
    for name in BETAS:
        run = folder.run_folder(tmp_path, name)
        shutil.copytree(finished, run, ignore=shutil.ignore_patterns("figures", "report.*"))
        store(run, "config.json", configs[name])
    plan = StudyPlan(
        schema=1,
        study="small",
        question="Does it matter?",
        about="",
        factors={"beta": tuple(BETAS)},
        primary=("attack_success_rate",),
        cells=tuple(StudyCell(levels={"beta": name}, arm="cai", run=name) for name in BETAS),
        contrasts=(StudyContrast(name="high - low", first=(1,), second=(0,), scale=1),),
        runs=configs,
    )
    (tmp_path / folder.PLAN).write_bytes(to_json(plan.dump()))
    return tmp_path


def swap(study: Path) -> None:
    low, high = (folder.run_folder(study, name) for name in BETAS)
    low.rename(study / "low")
    high.rename(low)
    (study / "low").rename(high)


def test_runs_in_each_other_s_place_are_refused_by_every_step_of_a_study(study: Path) -> None:
    works = [conduct.Work(name, Stages({}, {}, "self"), 1) for name in BETAS]
    assert conduct.conduct(study, works, Progress.quiet(), processes=1) == 0
    assert [cell.run for cell in analysis.collect(study, {}).cells] == list(BETAS)
    swap(study)
    message = r"runs/low: dpo\.beta is 0\.2 in this run and 0\.05 in the study's plan\.json, so it is not the run 'low'"
    for step in (
        lambda: analysis.collect(study, {}),
        lambda: conduct.conduct(study, works, Progress.quiet(), processes=1),
        lambda: worker.work(study, "low", Progress.quiet()),
    ):
        with pytest.raises(UserError, match=message):
            step()


def test_a_run_may_have_shorter_answers_than_planned_where_its_context_is_small(study: Path) -> None:
    run = folder.run_folder(study, "low")
    config = json.loads((run / "config.json").read_bytes())
    evaluation = config["evaluation"]
    planned = evaluation["response-tokens"]
    store(run, "config.json", config | {"evaluation": evaluation | {"response-tokens": planned - 1}})
    analysis.collect(study, {})
    store(run, "config.json", config | {"evaluation": evaluation | {"response-tokens": planned + 1}})
    with pytest.raises(UserError, match=r"evaluation\.response-tokens is "):
        analysis.collect(study, {})


def test_runs_with_other_evaluation_prompts_are_not_compared_in_pairs(study: Path) -> None:
    run = folder.run_folder(study, "high")
    inputs = json.loads((run / "inputs.json").read_bytes())
    inputs["evaluation_prompts"][0]["text"] += " Now!"
    store(run, "inputs.json", inputs)
    with pytest.raises(UserError, match="runs/high: high has other evaluation prompts than low"):
        analysis.collect(study, {})


def test_names_of_runs_that_are_one_folder_on_some_disks_are_refused(study: Path) -> None:
    plan = json.loads((study / folder.PLAN).read_bytes())
    plan["runs"]["Low"] = plan["runs"]["low"]
    (study / folder.PLAN).write_bytes(to_json(plan))
    with pytest.raises(UserError, match="runs: 'low' and 'Low' are one folder on some disks"):
        folder.read_plan(study)
