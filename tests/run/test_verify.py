"""`cai-base verify`: a finished run is checked without a model, and the first difference is named."""

import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from small_run import RUN

import cai_base
from cai_base.cli import main
from cai_base.store import Run


def rewrite(run: Path, name: str, change: Callable[[str], str]) -> None:
    """Change a stored file, and its hash in the manifest too, as a careful forger would."""
    content = change((run / name).read_text(encoding="utf-8")).encode()
    (run / name).write_bytes(content)
    manifest = json.loads((run / "manifest.json").read_bytes())
    manifest["files"][name] |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (run / "manifest.json").write_text(json.dumps(manifest))


def with_another_mean(text: str) -> str:
    results = json.loads(text)
    results["arms"]["cai"]["over_refusal_rate"]["mean"] = 0.25
    return json.dumps(results, indent=2, ensure_ascii=False)


def with_a_refusal(text: str) -> str:
    return text.replace('"complied": true, "refused": false', '"complied": false, "refused": true')


def with_other_helpfulness(text: str) -> str:
    first, rest = text.split("\n", 1)
    answer = json.loads(first)
    answer["verdict"]["helpfulness"] = 1 if answer["verdict"]["helpfulness"] != 1 else 2
    return f"{json.dumps(answer)}\n{rest}"


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("suites")))


def test_verify_finds_no_difference_in_an_unchanged_run(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(finished), "--json"]) == 0
    checked = json.loads(capsys.readouterr().out)
    assert checked["verified"]
    manifests = [finished / "manifest.json", *finished.glob("suites/*/manifest.json")]  # other tests ask it suites
    assert checked["files"] == sum(len(json.loads(one.read_bytes())["files"]) for one in manifests)
    assert checked["figures"] > 500
    assert checked["verdicts"] >= 2 * 2 * 6  # seeds, prompts, arms; and those of the chains
    assert any("log-probabilities" in sentence for sentence in checked["not_checked"])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("results.json", with_another_mean, "arms.cai.over_refusal_rate.mean is 0.25, but the stored answers give "),
        ("seed-1/evaluation/sft/attack.jsonl", with_a_refusal, "the verdict on 'b' is not the judge's"),
        (
            "seed-0/evaluation/sft/helpfulness.jsonl",
            lambda text: text.replace("the mill?", "the hall?"),
            "with another prompt; the folder was changed",
        ),
        ("seed-0/pairs.jsonl", lambda text: text.replace('"chosen": "', '"chosen": "No! '), "is not the pair of its"),
        (
            "seed-0/shuffled/pairs.jsonl",
            lambda text: text.replace('"chosen": "', '"chosen": "No! '),
            "is not the pair of its",
        ),
        (
            "seed-0/revision.jsonl",
            lambda text: text.replace('"prompt": "', '"prompt": "Well. ', 1),
            "its prompt is not that of ",
        ),
    ],
)
def test_a_change_that_includes_the_hash_is_named(
    copy: Path, capsys: pytest.CaptureFixture[str], name: str, change: Callable[[str], str], message: str
) -> None:
    before = (copy / name).read_text(encoding="utf-8")
    rewrite(copy, name, change)
    assert (copy / name).read_text(encoding="utf-8") != before
    assert main(["verify", str(copy)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert str(copy / name.rpartition("/")[0]) in error


def test_a_figure_that_an_older_version_did_not_store_is_not_checked_and_said(
    copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_principles(text: str) -> str:
        results = json.loads(text)
        del results["revision"]["principles"]
        return json.dumps(results)

    rewrite(copy, "results.json", without_principles)
    assert main(["verify", str(copy)]) == 2
    assert "revision.principles is absent" in capsys.readouterr().err
    monkeypatch.setattr("cai_base.run.session_facts.__version__", "9.9")
    assert main(["verify", str(copy), "--json"]) == 2
    assert any(one.startswith("revision.principles: ") for one in json.loads(capsys.readouterr().out)["not_checked"])


@pytest.mark.parametrize("key", ["revision", "warnings", "unscored"])
def test_a_deleted_figure_that_every_version_stores_is_a_difference_in_any_version(
    copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    rewrite(copy, "results.json", lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != key}))
    monkeypatch.setattr("cai_base.run.session_facts.__version__", "9.9")
    assert main(["verify", str(copy)]) == 2
    assert f"{key} is absent" in capsys.readouterr().err


def test_a_figure_that_another_version_may_not_have_stored_is_named_and_not_said_to_agree(
    copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_a_rate(text: str) -> str:
        results = json.loads(text)
        del results["arms"]["cai"]["over_refusal_rate"]
        return json.dumps(results)

    rewrite(copy, "results.json", without_a_rate)
    monkeypatch.setattr("cai_base.run.session_facts.__version__", "9.9")
    assert main(["verify", str(copy), "--json"]) == 2
    checked = json.loads(capsys.readouterr().out)
    assert (checked["verified"], checked["absent"]) == (False, ["arms.cai.over_refusal_rate"])
    assert main(["verify", str(copy)]) == 2
    said, error = capsys.readouterr()
    assert "results.json: arms.cai.over_refusal_rate is absent, but this version computes it" in error
    assert "the results lack 1 of the figures" in said
    assert "arms.cai.over_refusal_rate: results.json lacks it" in said
    assert "everything" not in said


def test_the_files_of_suites_are_compared_too_and_foreign_files_are_named(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"results.json": b'{"schema": 1}', "sft/seed-0.jsonl": b"{}\n"}
    Run.create(copy / "suites/mine", {"suite": {"name": "mine"}}, files)
    (copy / "seed-0/notes.txt").write_text("mine")
    assert main(["verify", str(copy), "--json"]) == 0
    checked = json.loads(capsys.readouterr().out)
    assert checked["files"] == len(json.loads((copy / "manifest.json").read_bytes())["files"]) + 3
    said = " ".join(checked["not_checked"])
    assert "files that this run did not store, which no figure rests on: 'seed-0/notes.txt'" in said
    for name in ("judge.jsonl", "second-judge.jsonl", "trackers/", "suites/mine has, and its figures, only the hashes"):
        assert name in said
    (copy / "suites/mine/sft/seed-0.jsonl").write_bytes(b"[]\n")
    assert main(["verify", str(copy)]) == 2
    assert "suites/mine/sft/seed-0.jsonl: differs from what this run stored" in capsys.readouterr().err


def test_a_changed_file_is_named_by_its_hash(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = copy / "seed-0" / "dpo" / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert main(["verify", str(copy)]) == 2
    error = capsys.readouterr().err
    assert f"{weights}: differs from what this run stored" in error
    takers = error.partition("a flag of ")[2].partition(";")[0].replace(" and ", ", ").split(", ")
    for command in takers:
        with suppress(SystemExit):  # argparse's, after it has printed the help
            main([command, "--help"])
        assert "--accept-changed" in capsys.readouterr().out, command


@pytest.mark.parametrize("name", ["seed-0/dpo/metrics.jsonl", "seed-1/revision.jsonl"])
def test_lines_added_to_a_finished_run_are_named(copy: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    lines = (copy / name).read_text(encoding="utf-8").splitlines(keepends=True)
    (copy / name).write_text("".join([*lines, lines[-1]]), encoding="utf-8")
    assert main(["verify", str(copy)]) == 2
    assert f"{copy / name}: differs from what this run stored" in capsys.readouterr().err
    # In a run of an earlier version no file is complete.
    manifest = json.loads((copy / "manifest.json").read_bytes())
    manifest["files"][name]["appended"] = True
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert main(["verify", str(copy)]) == 2
    assert f"{copy / name}:{len(lines) + 1}: was added after what this run stored" in capsys.readouterr().err


def test_an_evaluation_prompt_may_have_the_id_of_another_and_a_verdict_during_training_is_recomputed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the packaged prompts do: `benign-1` is one question in training and another in the evaluation."""
    packaged = (Path(cai_base.__file__).parent / "data/world/test.jsonl").read_text().splitlines()
    asked = [one for one in map(json.loads, packaged) if one["kind"] == "benign"]
    lines = [json.dumps(one | {"id": f"direct-{number}"}) + "\n" for number, one in enumerate(asked, start=1)]
    (tmp_path / "asked.jsonl").write_text("".join(lines))
    flags = "--seeds 1 --arms sft --control shuffled --accept rate,power,base --evaluate-every 1".split()
    small = [part for part in RUN[2:] if part not in ("--control", "shuffled,resample", "--arms", "sft,cai,instruct")]
    prompts = ["--evaluation.prompts", str(tmp_path / "asked.jsonl")]
    run = tmp_path / "run"
    assert main(["run", *flags, *small, *prompts, "--out", str(run)]) == 0
    inputs = json.loads((run / "inputs.json").read_bytes())
    assert {one["id"] for one in inputs["prompts"]} & {one["id"] for one in inputs["evaluation_prompts"]}
    assert main(["verify", str(run)]) == 0, capsys.readouterr().err
    rewrite(run, "seed-0/evaluation/sft/step-1/helpfulness.jsonl", with_other_helpfulness)
    assert main(["verify", str(run)]) == 2
    assert "evaluation/sft/step-1: the verdict on 'direct-1' is not the judge's" in capsys.readouterr().err
