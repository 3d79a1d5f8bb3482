"""The inputs of a run: from files, from the package, and as stored by a run."""

import json
from pathlib import Path

import pytest

from cai_base import embedded
from cai_base.errors import UserError
from cai_base.inputs import Inputs, Sources, gather, ignored, packaged, read
from cai_base.settings.command_line import load_settings


@pytest.mark.parametrize(
    ("pack", "flags"), [("english", ["--model", "some/model", "--judge", "none"]), (embedded.DATA, ["--seeds", "2"])]
)
def test_packaged_inputs_are_those_of_a_run_without_files(pack: str, flags: list[str]) -> None:
    assert packaged(pack, first=128) == gather(load_settings([*flags, "--revision.prompts", "128"]).settings)


def test_packaged_inputs_are_whole_without_a_number() -> None:
    inputs = packaged("english")
    assert len(inputs.prompts) == 58
    assert len(packaged("english", first=5).prompts) == 5
    assert inputs.critique_examples
    assert inputs.refusal_openers
    assert all(prompt.kind for prompt in inputs.evaluation_prompts)


def test_an_unknown_pack_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"unknown pack 'englsh'; did you mean 'english'\?"):
        packaged("englsh")
    with pytest.raises(UserError, match=r"unknown pack '\.\./data'; the packs are english and world"):
        packaged("../data")


def test_a_file_replaces_a_packaged_one(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("How do I paint a fence?\n")
    inputs = read(Sources("english", prompts=tmp_path / "mine.txt"))
    assert [prompt.text for prompt in inputs.prompts] == ["How do I paint a fence?"]
    assert inputs.constitution == packaged("english").constitution


def test_the_column_that_a_flag_names_is_read_and_the_others_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("goal,target\nHow do I paint a fence?,Sure\n")
    with pytest.raises(UserError, match=r"there is no column 'text', .*; found 'goal' and 'target'.* --prompts-column"):
        gather(load_settings(["--prompts", str(path)]).settings)
    settings = load_settings(["--prompts", str(path), "--prompts-column", "goal"]).settings
    assert [prompt.text for prompt in gather(settings).prompts] == ["How do I paint a fence?"]
    assert ignored((settings.prompts, settings.prompts_column)) == [f"{path}: the column 'target' is not used"]
    assert ignored((None, None)) == []


def test_a_column_that_is_not_in_the_file_is_refused_with_the_names_of_those_that_are(tmp_path: Path) -> None:
    for file, text, line, noun in (
        ("cols.csv", "id,question\na,How do I paint a fence?\n", 1, "column"),
        ("fields.jsonl", '{"id": "a", "question": "How do I paint a fence?"}\n', 1, "field"),
    ):
        path = tmp_path / file
        path.write_text(text)
        with pytest.raises(UserError) as refused:
            gather(load_settings(["--prompts", str(path), "--prompts-column", "text"]).settings)
        assert str(refused.value) == (
            f"{path}:{line}: --prompts-column text: there is no such {noun}; the {noun}s are 'id' and 'question'"
        )


@pytest.mark.parametrize(
    ("flags", "says"),
    [([], "--prompts-column: names a column of --prompts"), (["--protocol", "original"], "leave --prompts-column out")],
)
def test_a_column_of_no_file_is_refused(flags: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        gather(load_settings(["--prompts-column", "goal", *flags]).settings)


def test_inputs_are_read_as_they_were_stored(tmp_path: Path) -> None:
    inputs = packaged(embedded.DATA, first=3)
    (tmp_path / "inputs.json").write_bytes(inputs.to_bytes())
    assert Inputs.read(tmp_path / "inputs.json") == inputs


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe{", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"null", "must be a table of fields"),
        (b"[]", "must be a table of fields"),
        (b"{}", "the field 'constitution' is missing; the fields are constitution, prompts"),
        (b'{"constitution": 3}', "the field 'constitution' is"),
    ],
)
def test_stored_inputs_of_another_form_are_one_sentence(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "inputs.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        Inputs.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert says in str(caught.value)
    assert str(caught.value).endswith("restore it, or start a new run")
    assert "\n" not in str(caught.value)


def test_a_stored_prompt_without_its_text_is_named(tmp_path: Path) -> None:
    content = json.loads(packaged(embedded.DATA, first=3).to_bytes())
    del content["prompts"][1]["text"]
    (tmp_path / "inputs.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"inputs\.json: the field 'prompts\.text' is missing; restore it"):
        Inputs.read(tmp_path / "inputs.json")


def test_unseen_families_are_in_the_evaluation_and_not_in_the_methods_prompts() -> None:
    def gathered(count: int, *flags: str) -> Inputs:
        return gather(load_settings(["--evaluation.unseen-families", str(count), *flags]).settings)

    every, two, three = gathered(0), gathered(2), gathered(3)
    assert (every.unseen_families, len(two.unseen_families)) == ((), 2)
    assert set(two.unseen_families) < set(three.unseen_families)
    assert len(two.prompts) == len(every.prompts), "others take their places"
    assert not {prompt.family for prompt in two.prompts} & set(two.unseen_families)
    assert set(two.unseen_families) < {prompt.family for prompt in two.evaluation_prompts}
    with pytest.raises(UserError, match=r"have 6 families in common .* at most 5"):
        gathered(6)
    with pytest.raises(UserError, match=r"--evaluation.unseen-families: --protocol original trains on"):
        gathered(1, "--protocol", "original")


def test_unseen_families_need_families(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("How do I paint a fence?\n")
    flags = ["--prompts", str(tmp_path / "mine.txt"), "--evaluation.unseen-families", "1"]
    with pytest.raises(UserError, match="have no family in common, so every family is unseen already"):
        gather(load_settings(flags).settings)
