"""A finished run's models, asked again."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from refusals import refused
from safetensors.torch import load_file, save
from small_run import PROMPTS

from cai_base import embedded
from cai_base.cli import main
from cai_base.errors import UserError
from cai_base.evaluation.judges import GroundTruth
from cai_base.evaluation.tasks.prompts import answer
from cai_base.inputs import Inputs
from cai_base.inputs.kinds import ANSWER_FILES, PROMPT_KINDS
from cai_base.progress import Progress
from cai_base.report import suites
from cai_base.run.evaluation.evaluate import evaluate
from cai_base.run.evaluation.targets import Request
from cai_base.run.finished_run import load_arms
from cai_base.run.identity import files_digest
from cai_base.settings.schema import RunSettings
from cai_base.store import Run, to_json


def test_every_arm_of_a_finished_run_answers_what_it_answered_there(finished: Path) -> None:
    run = Run.open(finished)
    settings = RunSettings.model_validate(run.config)
    prompts = Inputs.model_validate_json((finished / "inputs.json").read_bytes()).evaluation_prompts
    names = []
    for arm in load_arms(finished, Progress()):
        names.append(arm.name)
        again = answer(arm.engine, arm.layout, settings.evaluation, GroundTruth(), prompts, arm.models, arm.draw)
        for seed, answers in again.items():
            for file in ANSWER_FILES:
                stored = run.lines(f"seed-{seed}/evaluation/{arm.name}/{file}.jsonl")
                responses = [record.response for record in answers if PROMPT_KINDS[record.kind].file == file]
                assert responses == [record["response"] for record in stored]
    assert names == ["base", "sft", "cai", "shuffled", "resample", "instruct"]


def test_an_arm_that_the_run_lacks_is_an_error_that_names_those_it_has(finished: Path) -> None:
    with pytest.raises(UserError, match="no arm 'sl-cai'; it has base, sft, cai, shuffled, resample, instruct"):
        load_arms(finished, Progress(), ["sl-cai"])


def test_a_run_that_is_not_finished_is_refused_with_the_command_that_finishes_it(
    finished: Path, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    shutil.copytree(finished, begun)
    manifest = json.loads((begun / "manifest.json").read_bytes())
    del manifest["progress"]["results"]
    (begun / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="not finished; finish it first: cai-base resume"):
        load_arms(begun, Progress())


def test_a_suite_is_asked_of_every_arm_and_seed_once(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = finished.parent / "village.jsonl"
    suite.write_text(PROMPTS)
    asked = ["evaluate", str(finished), "--suite", str(suite), "--threads", "1"]
    assert main([*asked, "--arms", "sft,cai"]) == 0
    results = finished / "suites" / "village" / "results.json"
    assert list(json.loads(results.read_bytes())["arms"]) == ["sft", "cai"]
    sampled = (results.parent / "cai" / "seed-1.jsonl").stat().st_mtime_ns
    capsys.readouterr()
    assert main(asked) == 0
    shown = capsys.readouterr()
    assert "answers of base" in shown.err
    assert "answers of cai" not in shown.err
    assert "suites/village" in (finished / "report.html").read_text("utf-8"), "the run's page has the suite"
    assert str(finished / "report.html") in shown.out
    content = json.loads(results.read_bytes())
    assert list(content["arms"]) == ["base", "sft", "cai", "shuffled", "resample", "instruct"]
    assert content["layouts"]["cai"] == "few-shot dialogue"
    assert content["layouts"]["instruct"] == "chat template"
    assert (results.parent / "cai" / "seed-1.jsonl").stat().st_mtime_ns == sampled
    ours = json.loads((finished / "results.json").read_bytes())
    for arm in ("base", "cai", "resample", "instruct"):  # the very prompts of the run, so the very answers
        assert (
            content["arms"][arm]["attack_success_rate"]["per_seed"]
            == (ours["arms"][arm]["attack_success_rate"]["per_seed"])
        )
    assert content["comparisons"]["cai - sft"]["attack_success_rate"]["seeds"] == 2
    assert "resample - sft" in content["comparisons"]
    assert Run.open(finished).progress("results")  # the run itself is as it was


def comparisons(folder: Path) -> Path:
    """A suite of one comparison by log-probability."""
    texts = {"text_correct": "\n\nHuman: How?\n\nAssistant: So.", "text_incorrect": "\n\nHuman: How?\n\nAssistant: No."}
    (folder / "hhh.jsonl").write_text(json.dumps(texts))
    return folder / "hhh.jsonl"


def restored(folder: Path, name: str, content: bytes) -> None:
    """Write a file of a run as if the run had stored it so."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"][name] |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    if name == "config.json":
        manifest["config"] = json.loads(content)
    (folder / "manifest.json").write_bytes(to_json(manifest))


@pytest.fixture
def with_suite(finished: Path, tmp_path: Path) -> Path:
    """A copy of the run, with a suite that one of its arms was asked. No page is written: that takes long."""
    run, suite = tmp_path / "run", comparisons(tmp_path)
    shutil.copytree(finished, run, ignore=shutil.ignore_patterns("suites"))
    evaluate(Request(str(run), str(suite), arms=("cai",), flags=("--threads", "1")), Progress.quiet())
    return run


def test_a_suite_that_another_run_was_asked_is_not_this_runs(
    with_suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As if the folder of the suite came from the copy of a run that trained another adapter."""
    name = "seed-0/dpo/adapter/adapter_model.safetensors"
    weights = {key: 2 * tensor for key, tensor in load_file(with_suite / name).items()}
    restored(with_suite, name, save(weights, {"format": "pt"}))
    place = with_suite / "suites/hhh"
    says = f"{place}: was asked of other weights than those of this run (adapters.dpo); move the folder away, and ask"
    for command in (["report"], ["verify"], ["evaluate", "--suite", str(tmp_path / "hhh.jsonl")]):
        assert says in " ".join(refused(capsys, command[0], str(with_suite), *command[1:]).split())


def test_a_suite_copied_from_a_run_with_the_same_weights_and_other_settings_is_refused(
    with_suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((with_suite / "config.json").read_bytes())
    config["evaluation"]["response-tokens"] += 1
    restored(with_suite, "config.json", to_json(config))
    says = f"{with_suite / 'suites/hhh'}: was asked by a run with other settings or inputs; move the folder away"
    for command in (["report"], ["verify"], ["evaluate", "--suite", str(tmp_path / "hhh.jsonl")]):
        assert says in " ".join(refused(capsys, command[0], str(with_suite), *command[1:]).split())


def test_a_suite_of_a_version_that_stored_no_weights_is_shown_with_a_note(
    with_suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((with_suite / "suites/hhh/config.json").read_bytes())
    assert list(suites.sections(with_suite)["suites/hhh"].warnings) == []
    del config["weights"]
    restored(with_suite / "suites/hhh", "config.json", to_json(config))
    note = "a version that did not store the weights that answered made it; cai-base evaluate asks again"
    assert suites.sections(with_suite)["suites/hhh"].warnings == [f"suites/hhh: {note}"]
    assert main(["verify", str(with_suite)]) == 0
    assert note in " ".join(capsys.readouterr().out.split())


def test_a_run_whose_instruct_model_changed_is_not_resumed_nor_asked(
    with_suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads((with_suite / "manifest.json").read_bytes())
    stored = manifest["found"]["model files"]["instruct"]
    assert stored["files"] == files_digest(str(embedded.sibling())), "the run stored it when it began"
    stored["files"] = "0" * 64  # as if it had begun with another one
    (with_suite / "manifest.json").write_bytes(to_json(manifest))
    says = f"its files are not those with which {with_suite} began; restore the old files, or start a new run"
    asked = ["evaluate", str(with_suite), "--suite", str(tmp_path / "hhh.jsonl"), "--arms", "instruct"]
    assert says in " ".join(refused(capsys, *asked).split())
    del manifest["progress"]["results"]
    (with_suite / "manifest.json").write_bytes(to_json(manifest))
    assert says in " ".join(refused(capsys, "resume", str(with_suite)).split())


def test_string_matching_of_a_suite_has_the_run_s_broken_answers_beside_it(finished: Path, tmp_path: Path) -> None:
    suite = tmp_path / "village.jsonl"
    suite.write_text(PROMPTS)
    asked = ["--judge", "refusal-phrases", "--arms", "base,sft", "--threads", "1", "--out", str(tmp_path / "suite")]
    assert main(["evaluate", str(finished), "--suite", str(suite), *asked]) == 0
    here, there = (
        json.loads((folder / "results.json").read_bytes())["arms"] for folder in (tmp_path / "suite", finished)
    )
    for arm in ("base", "sft"):  # the very prompts of the run, so the very answers
        for metric in ("broken_rate", "fluency"):
            assert here[arm][metric]["per_seed"] == there[arm][metric]["per_seed"]


def test_an_exported_adapter_alone_answers_what_its_arm_answered(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("village.jsonl").write_text(PROMPTS)
    settings = "--start-seed 1 --threads 1 --evaluation.response-tokens 24 --out out --suite village.jsonl".split()
    assert main(["evaluate", str(finished / "seed-1" / "dpo" / "adapter"), *settings]) == 0
    alone = [json.loads(line) for line in Path("out/model/seed-1.jsonl").read_text().splitlines()]
    stored = finished / "seed-1" / "evaluation" / "cai"
    there = [json.loads(line) for path in sorted(stored.glob("*.jsonl")) for line in path.read_text().splitlines()]
    assert {record["id"]: record["response"] for record in alone} == {r["id"]: r["response"] for r in there}
