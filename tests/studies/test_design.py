"""A study's file becomes cells, runs and comparisons; what it names and does not exist is one sentence."""

import json
from pathlib import Path

import pytest

from cai_base.cli import main
from cai_base.errors import UserError
from cai_base.run.spending import forecast
from cai_base.studies.design import packaged_studies, read_design
from cai_base.studies.folder import open_folder, plan_record
from cai_base.studies.plan import plan

TWO = """
question = "Does the preference matter, or the prefill?"

[run]
seeds = 2

[quick.run]
dpo.steps = 20
[quick.levels]
prefill = ["without"]

[factor.preference.revision]
arm = "cai"
[factor.preference.shuffled]
arm = "shuffled"

[factor.prefill.without]
revision.refusal-prefill = 0.0
[factor.prefill.with]
revision.refusal-prefill = 0.25
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "two.toml"
    file.write_text(text)
    return file


def test_cells_with_equal_settings_are_arms_of_one_run(tmp_path: Path) -> None:
    design = read_design(written(tmp_path, TWO))
    assert [(*cell.levels.values(), cell.arm) for cell in design.cells] == [
        ("revision", "without", "cai"),
        ("revision", "with", "cai"),
        ("shuffled", "without", "shuffled"),
        ("shuffled", "with", "shuffled"),
    ]
    runs = plan(design, {"sft": {"steps": "7"}})
    assert [(run.name, run.cells) for run in runs] == [("prefill-without", (0, 2)), ("prefill-with", (1, 3))]
    for run, prefill in zip(runs, (0.0, 0.25), strict=True):
        settings = run.settings
        assert (settings.arms, settings.control) == (("sft", "cai"), ("shuffled",))
        assert (settings.seeds, settings.threads, settings.sft.steps) == (2, 1, 7)
        assert settings.revision.refusal_prefill == prefill


def test_without_comparisons_every_level_is_compared_with_the_first_of_its_factor(tmp_path: Path) -> None:
    comparisons = read_design(written(tmp_path, TWO)).comparisons
    assert [(one.name, one.first, one.second) for one in comparisons] == [
        ("preference shuffled - preference revision", (2, 3), (0, 1)),
        ("prefill with - prefill without", (1, 3), (0, 2)),
    ]


def test_an_interaction_is_a_difference_of_differences(tmp_path: Path) -> None:
    text = TWO + (
        '[[compare]]\nname = "more"\nfirst = { preference = "revision" }\nsecond = { preference = "shuffled" }\n'
        'within = { prefill = "with" }\nbeyond = { prefill = "without" }\n'
    )
    (one,) = read_design(written(tmp_path, text)).comparisons
    assert (one.name, one.first, one.second, one.scale) == ("more", (1, 2), (3, 0), 2)


def test_cells_that_are_left_out_are_in_no_comparison(tmp_path: Path) -> None:
    text = TWO + '[[without]]\npreference = "shuffled"\nprefill = "with"\n'
    design = read_design(written(tmp_path, text))
    assert len(design.cells) == 3
    assert [(one.first, one.second) for one in design.comparisons] == [((2,), (0,)), ((1,), (0,))]


def test_quick_changes_settings_and_levels(tmp_path: Path) -> None:
    design = read_design(written(tmp_path, TWO), quick=True)
    assert [cell.levels["prefill"] for cell in design.cells] == ["without", "without"]
    assert [run.settings.dpo.steps for run in plan(design, {})] == [20]


FAULTS = {
    "an unknown setting": (
        TWO.replace("seeds = 2", "seedz = 2"),
        "two.toml: [run]: seedz: no such setting; did you mean seeds?",
    ),
    "an unknown setting of a level": (
        TWO.replace("revision.refusal-prefill = 0.25", "revision.prefill = 0.25"),
        "two.toml: [factor.prefill.with]: revision.prefill: no such setting",
    ),
    "an unknown arm": (
        TWO.replace('"shuffled"', '"shuffeld"'),
        "two.toml: factor.preference.shuffled.arm 'shuffeld': is not an arm; the arms are sft, cai",
    ),
    "an arm named twice": (
        TWO.replace("seeds = 2", 'seeds = 2\narms = "sft,sft"'),
        "two.toml: arms 'sft,sft' has 'sft' twice; give it once",
    ),
    "a wrong value": (TWO.replace("= 0.25", "= 2.5"), "prefill with: revision.refusal-prefill 2.5: must be at most 1"),
    "an unknown factor": (
        TWO + '[[without]]\nprefil = "with"\n',
        "two.toml: without: unknown factor 'prefil'; did you mean 'prefill'?",
    ),
    "an unknown level": (
        TWO + '[[compare]]\nfirst = { prefill = "half" }\nsecond = { prefill = "with" }\n',
        "two.toml: compare.first.prefill: unknown level 'half'; the levels are",
    ),
    "a comparison of nothing": (
        TWO + '[[compare]]\nfirst = { prefill = "with" }\nsecond = { prefill = "with" }\n',
        "must have the same factors and differ in at least one level",
    ),
    "no question": (TWO.replace("question =", "asks ="), "two.toml: unknown field 'asks'"),
    "two equal levels": (
        TWO.replace("revision.refusal-prefill = 0.25", "revision.refusal-prefill = 0.0"),
        "two.toml: factor.prefill: the levels 'without' and 'with' have the same settings and arm, so prefill with - "
        "prefill without would compare cai with itself; change one of them, or remove it",
    ),
    "two levels with the same arm": (
        TWO.replace('"shuffled"', '"cai"'),
        "two.toml: factor.preference: the levels 'revision' and 'shuffled' have the same settings and arm",
    ),
    "other seeds": (
        TWO.replace("revision.refusal-prefill = 0.25", "seeds = 3"),
        "two.toml: prefill-with has other seeds than prefill-without; answers are compared in pairs",
    ),
    "another judge": (
        TWO.replace("revision.refusal-prefill = 0.25", 'judge = "none"'),
        "two.toml: prefill-with has another judge than prefill-without; answers are compared in pairs",
    ),
    "one level": (
        'question = "?"\n[factor.a.b]\nsft.steps = 2\n',
        "two.toml: factor.a: has one level; a factor needs at least two",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_study_is_refused_in_one_sentence(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, message = FAULTS[fault]
    assert main(["study", str(written(tmp_path, text)), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--revision.refusal-prefill", "0.5"], "--revision.refusal-prefill: is varied by the study two"),
        (["--arms", "sft"], "--arms: the levels of a study name its arms"),
        (["--seedz", "2"], "did you mean --seeds?"),
        (["--evaluation.primary", "attack"], "--evaluation.primary 'attack': is not a metric"),
        (["--track", "wandb"], "--track: a study has no such flag"),
        (["--print-settings"], "--print-settings: a study has no such flag"),
        ([], "--out is missing"),
    ],
)
def test_a_flag_that_a_study_cannot_take_is_refused(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out")] if flags else []
    assert main(["study", str(written(tmp_path, TWO)), *out, *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_study_that_does_not_exist_is_refused_with_the_packaged_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "stage", "--out", "nowhere"]) == 2
    assert "stage: no such study; did you mean stages?" in capsys.readouterr().err


def test_the_estimate_says_cost_and_detectable_difference_and_makes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, TWO)
    monkeypatch.chdir(tmp_path)
    speed = forecast.Speed(trained=0.001, read=0.0, sampled=0.0, memory=0)
    monkeypatch.setattr(forecast, "measured_speed", lambda *_: speed)  # the real one is timed in test_forecast
    assert main(["study", str(file), "--estimate", "--processes", "2"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Does the preference matter, or the prefill?\n4 cells in 2 runs of 2 seeds; ")
    trained = int(said.partition("At most ")[2].partition(" tokens trained on")[0].replace(",", ""))
    about = said.partition("timed steps: about ")[2].partition(" with 2 processes")[0]
    assert int(about.removesuffix(" min")) == pytest.approx(trained * 0.001 / 2 / 60, rel=0.5, abs=2)
    assert "a comparison of two cells detects a difference in attack success with less power than 0.8" in said
    assert "2 comparisons x 2 primary metrics (attack_success_rate, over_refusal_rate)" in said
    assert list(tmp_path.iterdir()) == [file]
    assert main(["study", str(file), "--estimate", "--seeds", "10", "--evaluation.prompts", "wide"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "a difference in attack success of about 12 points with power 0.8, before correction, for these 6 " in said
    assert "for these 6 families; with families as a sample one of about 30 points." in said


@pytest.mark.parametrize("name", packaged_studies())
@pytest.mark.parametrize("quick", [False, True])
def test_every_packaged_study_can_be_planned(name: str, quick: bool) -> None:
    design = read_design(packaged_studies()[name], quick=quick)
    assert plan(design, {})
    assert design.comparisons


def test_a_study_without_its_file_names_it() -> None:
    with pytest.raises(UserError, match=r"gone\.toml: there is no such file"):
        read_design(Path("gone.toml"))


def test_a_plan_of_a_version_without_a_setting_is_continued(tmp_path: Path) -> None:
    design = read_design(packaged_studies()["stages"], quick=True)
    record = plan_record(design, plan(design, {}))
    assert not open_folder(tmp_path / "study", record)
    file = tmp_path / "study/plan.json"
    stored = json.loads(file.read_text())
    for settings in stored["runs"].values():
        assert settings.pop("dtype") == "auto"
    file.write_text(json.dumps(stored))
    assert open_folder(tmp_path / "study", record)
    for settings in stored["runs"].values():
        settings["seeds"] = 3
    file.write_text(json.dumps(stored))
    with pytest.raises(UserError, match="has a study with another"):
        open_folder(tmp_path / "study", record)
