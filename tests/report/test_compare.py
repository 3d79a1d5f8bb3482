"""Comparison of runs: differences paired over shared seeds and prompts, and the settings that differ."""

import json
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

from cai_base.cli import main
from cai_base.evaluation.judges.refusal_phrases import ABOUT, RefusalPhrases
from cai_base.paths import answers
from cai_base.report.compare import html, render, warnings
from cai_base.report.labels import label
from cai_base.run.results.compare_runs import compare
from cai_base.store import Run, to_lines

MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def runs(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs, the second with one seed more and whose full CAI still answers harmless prompts."""
    folder = tmp_path_factory.mktemp("runs")
    return (
        make_run(seeds=2).rename(folder / "first"),
        make_run(seeds=3, helpful=True).rename(folder / "second"),
    )


def as_json(runs: tuple[Path, ...], capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert main(["compare", *map(str, runs), "--json"]) == 0
    content: dict[str, object] = json.loads(capsys.readouterr().out)
    return content


def test_a_difference_is_over_the_shared_seeds_alone(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (against,) = as_json(runs, capsys)["against_first"]
    assert (against["run"], against["seeds"]) == ("second", [0, 1])
    rates = [
        json.loads((run / "results.json").read_bytes())["arms"]["cai"]["over_refusal_rate"]["per_seed"] for run in runs
    ]
    mean = sum(second - first for first, second in zip(rates[0], rates[1][:2], strict=True)) / 2
    difference = against["arms"]["cai"]["over_refusal_rate"]
    assert difference["difference"] == pytest.approx(mean)
    assert difference["seeds"] == 2
    assert difference["ci95"] is None or difference["ci95"][0] <= mean <= difference["ci95"][1]
    assert against["arms"]["cai"]["fluency"]["difference"] == 0, "the base model is the same"
    assert against["left_out"] == []


def test_the_settings_that_differ_are_named(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    settings = as_json(runs, capsys)["settings"]
    assert settings == {"seeds": ["2", "3"]}


def test_an_arm_with_the_same_answers_has_no_interval_and_one_model_has_that_of_the_report(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(seeds=2)
    shutil.copytree(run, tmp_path / "other")
    other = Run.open(tmp_path / "other")
    file = answers(0, "base", "attack")
    lines = [json.loads(line) for line in (other.directory / file).read_text(encoding="utf-8").splitlines()]
    lines[0]["verdict"]["complied"] = not lines[0]["verdict"]["complied"]
    other.commit(write={file: to_lines(lines)})
    pair = (run, other.directory)
    (against,) = as_json(pair, capsys)["against_first"]
    assert against["same_answers"] == ["sft", "cai"]
    difference = against["arms"]["base"]["attack_success_rate"]
    assert (list(against["arms"]), difference["ci95_over"], difference["seeds"]) == (["base"], "prompts", 2)
    assert abs(difference["difference"]) == pytest.approx(0.5 / sum(line["kind"] == "jailbreak" for line in lines))
    assert main(["compare", *map(str, pair), "--out", str(tmp_path / "compare.html")]) == 0
    for text in (capsys.readouterr().out, (tmp_path / "compare.html").read_text(encoding="utf-8")):
        words = " ".join(text.split())
        assert words.count("same answers") >= 2 * len(against["arms"]["base"])
        assert f"Of one model ({label('base')}) they are over prompts, as in each run's report." in words.replace(
            "&#39;", "'"
        )
        assert "The same answers in both runs, so there is no difference: SFT-only, Full CAI." in words
        assert "Left out" not in words


def test_what_each_run_measures_with_another_base_model_is_left_out(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs[1], tmp_path / "other")
    other = Run.open(tmp_path / "other")
    other.record_on_commit("engine", lambda: {"model": "1" * 64})
    other.commit()
    assert main(["compare", str(runs[0]), str(other.directory)]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "Left out: Broken language and Fluency, which each run measures with its own base model." in words


def test_one_shared_seed_has_intervals_over_prompts_only(
    runs: tuple[Path, Path], make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    third = make_run(seeds=1, helpful=True)
    assert main(["compare", str(runs[0]), str(third), "--out", str(tmp_path / "compare.html")]) == 0
    for text in (capsys.readouterr().out, (tmp_path / "compare.html").read_text(encoding="utf-8")):
        words = " ".join(text.split())
        assert "Paired over seed 0 and the" in words
        assert "95 % intervals over prompts only: another seed may differ." in words
        assert "1 seeds" not in words


def test_settings_are_shown_without_quotes_and_a_packaged_constitution_by_its_name(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packaged = files("cai_base") / "data" / "english" / "constitution.toml"
    own = tmp_path / "mine.toml"
    own.write_bytes(packaged.read_bytes())
    pair = make_run(seeds=1), make_run(seeds=1, constitution=own)
    assert main(["compare", *map(str, pair), "--out", str(tmp_path / "compare.html")]) == 0
    page = (tmp_path / "compare.html").read_text(encoding="utf-8")
    assert page.lower().count("settings that differ") == 1
    for text in (capsys.readouterr().out, page):
        assert "english (packaged)" in text
        assert str(own) in text
        assert f'"{own}"' not in text


def test_the_page_and_the_terminal_have_the_differences(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *map(str, runs), "--out", str(tmp_path / "compare.html")]) == 0
    for text in (capsys.readouterr().out, (tmp_path / "compare.html").read_text(encoding="utf-8")):
        assert "second − first" in text
        assert "Over-refusal rate (%)" in text
        assert "Paired over the seeds (0, 1) and the" in " ".join(text.split())
    assert "<script" not in (tmp_path / "compare.html").read_text(encoding="utf-8")


def test_failures_and_warnings_of_each_run_are_named_first_and_its_figures_marked(
    runs: tuple[Path, Path], make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first run's full CAI refuses harmless prompts too, so its attack success says nothing."""
    changed = make_run(seeds=2, helpful=True, warnings=("inputs.json was changed and accepted",)).rename(tmp_path / "b")
    both = (runs[0], changed)
    refuser, other = as_json(both, capsys)["runs"]
    stored = json.loads((runs[0] / "results.json").read_bytes())
    assert refuser["failures"] == stored["failures"] != []
    assert refuser["warnings"] == stored["warnings"]
    assert other["failures"] == []
    assert "inputs.json was changed and accepted" in other["warnings"]
    assert "b: inputs.json was changed and accepted" in warnings(compare(both))
    terminal, page = (" ".join(write(compare(both)).replace("\u2060", "").split()) for write in (render, html))
    assert terminal.startswith("FAILURE: first, Full CAI: blanket refusal")
    assert page.index("<strong>Failure.</strong> first, Full CAI: blanket refusal") < page.index("Settings that differ")
    for text in (terminal, page):
        assert "b: inputs.json was changed and accepted" in text
        assert text.count("✗ blanket refusal") == 4, "attack success and over-refusal: as a mean, and as a difference"


def test_rates_by_string_matching_are_called_that_beside_the_differences(runs: tuple[Path, Path]) -> None:
    compared = compare(runs)
    judges = ("ground-truth", RefusalPhrases.name)
    by_strings = compared.model_copy(
        update={
            "runs": tuple(
                one.model_copy(update={"judge": judge}) for one, judge in zip(compared.runs, judges, strict=True)
            )
        }
    )
    for write in (render, html):
        assert ABOUT in " ".join(write(by_strings).replace("&#39;", "'").split())
        assert "string matching" not in write(compared)


def test_runs_without_a_shared_seed_are_told_what_to_do_and_have_no_differences(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = make_run(seeds=2).rename(tmp_path / "a"), make_run(seeds=2, start_seed=2).rename(tmp_path / "b")
    assert main(["compare", str(first), str(second), "--out", str(tmp_path / "compare.html")]) == 0
    for text in (capsys.readouterr().out, (tmp_path / "compare.html").read_text(encoding="utf-8")):
        words = " ".join(text.split())
        assert "b and a share no seed (b has 2, 3; a has 0, 1), so they cannot be paired" in words
        assert "nothing can be paired" in words
        assert "seeds (none)" not in words
        assert "Attack success rate" in words  # the means


def test_differences_of_three_runs_say_what_is_subtracted(runs: tuple[Path, Path], make_run: MakeRun) -> None:
    third = make_run(seeds=1)
    for write in (render, html):
        text = " ".join(write(compare((*runs, third))).split())
        assert "Every difference is a run minus first, the first one named." in text
        assert "Every difference" not in write(compare(runs))


def test_a_copy_of_a_run_has_the_same_answers_and_no_difference(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs[0], tmp_path / "copy")
    assert main(["compare", str(runs[0]), str(tmp_path / "copy")]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "The runs have the same settings and inputs." in words
    assert "The same answers in both runs, so there is no difference: SFT-only, Full CAI, Base model." in words


def test_one_run_or_the_same_twice_is_refused(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(runs[0])]) == 2
    assert "give at least two runs" in capsys.readouterr().err
    assert main(["compare", str(runs[0]), str(runs[0])]) == 2
    assert "named twice" in capsys.readouterr().err


def test_a_folder_that_is_not_a_run_is_named_before_any_file_is_read(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []
    monkeypatch.setattr(Run, "verify", lambda run: hashed.append(run.directory))
    assert main(["compare", str(runs[0]), str(tmp_path)]) == 2
    assert "not a run" in capsys.readouterr().err
    assert main(["compare", str(runs[0]), str(runs[0])]) == 2
    assert hashed == []
