"""Wrong input files, folders and commands: exit code 2, one message that says what would be right, and no files."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from refusals import refused

from cai_base.cli import main
from cai_base.inputs import gather
from cai_base.run.start import foreign_text
from cai_base.settings.command_line import load_settings
from cai_base.store import Run


@pytest.mark.parametrize(
    ("flag", "name", "content", "says"),
    [
        ("--constitution", "c.toml", "[[principle]]\nname = 'a'\n", "c.toml"),
        ("--constitution", "c.json", "[]", "c.json"),
        ("--prompts", "p.txt", "\n\n", "the file is empty"),
        ("--prompts", "p.jsonl", '{"text": 3}\n', "p.jsonl:1"),
        ("--prompts", "p.csv", "goal\nx\n", "p.csv"),
        ("--critique-examples", "e.toml", "[[example]]\nprompt = 'x'\n", "e.toml"),
        ("--evaluation.prompts", "p.txt", "a question\n", "has no kind"),
    ],
)
def test_a_wrong_input_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, name: str, content: str, says: str
) -> None:
    (tmp_path / name).write_text(content)
    out = tmp_path / "run"
    assert says in refused(capsys, "run", flag, str(tmp_path / name), "--out", str(out))
    assert not out.exists()


def test_prompts_that_are_also_evaluation_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.txt").write_text("One question?\nAnother question?\n")
    (tmp_path / "test.csv").write_text("text,kind\nanother QUESTION,benign\n")
    files = ["--prompts", str(tmp_path / "train.txt"), "--evaluation.prompts", str(tmp_path / "test.csv")]
    message = refused(capsys, "run", *files, "--out", str(tmp_path / "run"))
    assert "train.txt:2: 'Another question?' is also the evaluation prompt at" in message
    assert "test.csv:2; 1 of the method's prompts is also an evaluation prompt" in message


@pytest.mark.parametrize(("name", "what"), [("examples", "the SFT examples"), ("few_shot", "the few-shot turns")])
@pytest.mark.parametrize("data", ["english", "world"])
def test_examples_that_are_also_evaluation_prompts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: str, name: str, what: str
) -> None:
    examples = Path(str(files("cai_base"))) / "data" / data / f"{name}.jsonl"
    shown = [json.loads(line)["prompt"] for line in examples.read_text(encoding="utf-8").splitlines()]
    (tmp_path / "test.jsonl").write_text(
        "".join(json.dumps({"text": text.upper(), "kind": "benign"}) + "\n" for text in shown[:2])
    )
    message = refused(capsys, "run", "--data", data, "--evaluation.prompts", str(tmp_path / "test.jsonl"))
    assert f"{name}.jsonl:1: " in message
    assert shown[0][:20] in message
    assert f"test.jsonl:1; 2 of {what} are also evaluation prompts" in message


def test_a_path_where_no_build_can_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "organism", "build", "--out", "/dev/null/x")
    assert "--out /dev/null/x: cannot be created (Not a directory)" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize("kind", ["missing", "empty", "not a model", "pickle"])
def test_a_wrong_model_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    folder = tmp_path / "model"
    if kind != "missing":
        folder.mkdir()
    if kind == "not a model":
        (folder / "config.json").write_text('{"model_type": "toaster"}')
    if kind == "pickle":
        (folder / "config.json").write_text('{"model_type": "llama", "vocab_size": 8}')
        (folder / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    out = tmp_path / "run"
    message = refused(capsys, "run", "--model", str(folder), "--judge", "none", "--out", str(out))
    assert f"--model {folder}" in message
    assert not out.exists()


def test_a_directory_that_exists_is_not_written_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "already exists" in refused(capsys, "run", "--out", str(tmp_path))


@pytest.mark.parametrize("command", ["resume", "report"])
def test_a_directory_that_is_not_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert "not a run" in refused(capsys, command, str(tmp_path))


CONFIG = load_settings(["--seeds", "1"]).settings.model_dump(mode="json", by_alias=True)


@pytest.mark.parametrize("command", ["resume", "report", "style"])
@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({}, "config.json: seeds: is missing; this run was made by"),
        (CONFIG | {"sedes": 1}, "config.json: sedes: no such setting; did you mean seeds?"),
        (CONFIG | {"sft": []}, "config.json: sft []: is a group of settings"),
        (
            CONFIG | {"sft": {**CONFIG["sft"], "steps": {"x": 1}}},
            "config.json: sft.steps: is one setting, not a group",
        ),
        (CONFIG | {"seeds": "many"}, "config.json: seeds 'many': "),
        (CONFIG | {"arms": "sft,kto"}, "config.json: arms: 'kto' is not an arm"),
    ],
)
def test_a_run_with_a_configuration_of_another_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, config: dict[str, Any], says: str
) -> None:
    run = Run.create(tmp_path / "run", config, {"inputs.json": b"[]"})
    run.commit("results", 1, write={"results.json": b"{}"})
    message = refused(capsys, command, str(run.directory))
    assert says in message
    assert "another version of cai-base, or was changed: start a new run" in message


@pytest.mark.parametrize("args", [["fly"], ["resume"], ["report", "a", "b"], ["organism"], ["organism", "grow"]])
def test_a_wrong_command(capsys: pytest.CaptureFixture[str], args: list[str]) -> None:
    assert refused(capsys, *args).startswith("cai-base: ")


@pytest.mark.parametrize(
    ("constitution", "principles"), [("english/constitution", 18), ("world/constitution", 0), ("world/placebo", 0)]
)
def test_a_constitution_with_words_unknown_in_the_village_is_a_warning(constitution: str, principles: int) -> None:
    file = str(files("cai_base") / "data" / f"{constitution}.toml")
    warnings = foreign_text(gather(load_settings(["--constitution", file])[0]))
    assert [f"{principles} of the constitution's 18 principles have words" in warning for warning in warnings] == (
        [True] * bool(principles)
    )


def test_prompts_that_are_not_about_the_village_are_named(tmp_path: Path) -> None:
    own = tmp_path / "mine.txt"
    foreign = [f"How do I install release {number} of this program?" for number in range(6)]
    own.write_text("\n".join(["How do I sweep the mill?", *foreign]), encoding="utf-8")
    (warning,) = foreign_text(gather(load_settings(["--prompts", str(own)])[0]))
    assert "6 of the method's 7 prompts cannot be understood by the embedded model" in warning
    assert f": {', '.join(map(repr, foreign[:4]))}, and 2 more" in warning


def test_one_foreign_principle_among_four_is_named_with_its_words_before_the_checks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packaged = (files("cai_base") / "data" / "world" / "constitution.toml").read_text(encoding="utf-8")
    head, *principles = packaged.split("[[principle]]")
    foreign = """
name = "cryptography"
category = "mine"
critique_request = "Does the answer recommend obsolete cryptography or leak passwords? If it does not, say so."
revision_request = "Please rewrite the answer without obsolete cryptography."
"""
    own = tmp_path / "mine.toml"
    own.write_text("[[principle]]".join([head, *principles[:3], foreign]), encoding="utf-8")
    (warning,) = foreign_text(gather(load_settings(["--constitution", str(own)])[0]))
    assert "1 of the constitution's 4 principles have words" in warning
    assert ": cryptography (cryptography, recommend, passwords)." in warning
    assert "src/cai_base/data/world/constitution.toml" in warning
    assert (Path(__file__).parents[1] / "src/cai_base/data/world/constitution.toml").is_file()
    main(["preflight", "--constitution", str(own), "--seeds", "1", "--threads", "1"])
    shown = capsys.readouterr().err
    assert " ".join(f"warning: {warning}".split()) in " ".join(shown.split())
    assert shown.count("warning: 1 of the constitution's") == 1
