"""GGUF files: converted once, loaded as any other model, refused in one sentence."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import SHAPE
from engines.gguf_files import WIDTH, write
from transformers import AutoModelForCausalLM, AutoTokenizer

from cai_base import models
from cai_base.engines import Datum, EngineError, Lora
from cai_base.engines.local import LocalEngine, gguf
from cai_base.errors import UserError
from cai_base.progress import Progress
from cai_base.run.evaluation.targets import check_target
from cai_base.settings.command_line import load_settings

if importlib.util.find_spec("gguf") is None:
    pytest.skip("the package gguf, of the extra of that name, is not installed", allow_module_level=True)

TEXT = "User: how do I bake bread?\n\nAssistant: knead the dough"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert SHAPE["hidden_size"] == WIDTH
    return write(tmp_path_factory.mktemp("gguf") / "Small.Q8_0.gguf")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One cache for the module, so that the file is converted once."""
    folder = tmp_path_factory.getbasetemp() / "gguf-cache"
    monkeypatch.setenv("CAI_BASE_CACHE", str(folder))
    return folder


def refusal(model: Path) -> str:
    """The message about a refused file: one line that names it."""
    with pytest.raises(EngineError) as caught:
        gguf.converted(str(model))
    text = str(caught.value)
    assert text.startswith(f"model {model}: ")
    assert "\n" not in text
    return text


def test_a_gguf_file_gives_the_log_probabilities_that_transformers_gives(file: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    engine = models.load_model(str(file), longest=96, threads=1)
    tokens = (*engine.tokenizer.bos, *engine.tokenizer.encode(TEXT))
    assert list(tokens) == [0, *tokenizer(TEXT, add_special_tokens=False)["input_ids"]]
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0, :-1].log_softmax(-1)
    expected = float(logits.gather(1, torch.tensor(tokens)[1:, None]).sum())
    data = [Datum(tokens, (0.0, *[1.0] * (len(tokens) - 1)))]
    assert engine.compute_logprobs({None: data})[None] == pytest.approx([expected], abs=1e-3)


def test_the_file_says_where_a_text_begins_and_ends(file: Path) -> None:
    tokenizer = models.load_model(str(file), longest=96, threads=1).tokenizer
    assert tokenizer.bos == (0,)
    assert tokenizer.eos == {1, 7}
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT


def test_the_second_load_converts_nothing(file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = gguf.converted(str(file))
    monkeypatch.setattr(gguf, "_convert", lambda *_: pytest.fail("it was converted again"))
    assert gguf.converted(str(file)) == first
    moved = file.with_name("another-name.GGUF")
    moved.write_bytes(file.read_bytes())
    assert gguf.converted(str(moved)) == first
    assert [path.name for path in (cache / "gguf").iterdir()] == [Path(first).name]


@pytest.mark.parametrize("damage", ["a torn file", "a file too few", "no hashes", "an empty folder"])
def test_a_damaged_conversion_is_made_again(file: Path, damage: str) -> None:
    folder = Path(gguf.converted(str(file)))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    if damage == "a torn file":
        (folder / "model.safetensors").write_bytes(before["model.safetensors"][:-8])
    elif damage == "an empty folder":
        for path in folder.iterdir():
            path.unlink()
    else:
        (folder / {"a file too few": "tokenizer.json", "no hashes": gguf.HASHES}[damage]).unlink()
    assert Path(gguf.converted(str(file))) == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "nothing else is left there"


def test_a_conversion_reads_the_fields_once_shows_nothing_and_is_of_one_version(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import gguf as package

    monkeypatch.setenv("CAI_BASE_CACHE", str(tmp_path))
    read: list[str] = []
    build = package.GGUFReader._build_fields
    monkeypatch.setattr(package.GGUFReader, "_build_fields", lambda self, *a: read.append("once") or build(self, *a))
    first = gguf.converted(str(file))
    assert read == ["once"]
    assert capfd.readouterr() == ("", "")
    names = {first}
    for change in (
        lambda: monkeypatch.setattr(gguf.transformers, "__version__", "99.0"),
        lambda: monkeypatch.setattr(gguf.importlib.metadata, "version", lambda _: "99.0"),
        lambda: monkeypatch.setattr(gguf.inspect, "getsource", lambda _: "another converter"),
    ):
        change()
        names.add(gguf.converted(str(file)))
    assert len(names) == 4


def test_other_files_in_the_folder_are_not_used(file: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("CAI_BASE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model.gguf").write_bytes(file.read_bytes())
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "</s>", "chat_template": "another"}')
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "nowhere/else"}')
    engine = LocalEngine(gguf.converted(str(tmp_path / "model.gguf")), Lora(4, 4), sequence_length=32, device="cpu")
    assert engine.tokenizer.bos == (0,)
    assert (
        engine.tokenizer.decode(engine.tokenizer.chat([{"role": "user", "content": "bread"}]))
        == "user: bread\nassistant:"
    )


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "there is no such file" in refusal(tmp_path / "nowhere.gguf")


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("knead the dough")
    assert "is no GGUF file, or a damaged one" in refusal(tmp_path / "text.gguf")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.5, 0.99])
def test_an_incomplete_file(file: Path, tmp_path: Path, cache: Path, share: float) -> None:
    whole = file.read_bytes()
    (tmp_path / "part.gguf").write_bytes(whole[: int(share * len(whole))])
    assert "is no GGUF file, or a damaged one" in refusal(tmp_path / "part.gguf")
    assert not any(path.name.startswith("tmp") for path in (cache / "gguf").glob("*"))


def test_an_architecture_that_transformers_does_not_read(tmp_path: Path) -> None:
    text = refusal(write(tmp_path / "rwkv.gguf", "rwkv7"))
    assert "does not read this file of architecture 'rwkv7'" in text
    assert "folder in Hugging Face layout" in text


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "new.gguf").write_text("not yet converted")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert refusal(tmp_path / "new.gguf").endswith("install with pip install 'cai-base[gguf]', or '.[gguf]' in a clone")


def test_every_flag_that_takes_a_model_takes_a_file(file: Path) -> None:
    flags = ["--model", str(file), "--judge", f"hf:{file}", "--instruct", str(file), "--arms", "sft,instruct"]
    settings = load_settings([*flags, "--threads", "1"]).settings
    progress = Progress(sys.stderr)
    assert models.load_tokenizer(settings.base_model).bos == (0,)
    models.check_instruct(settings.instruct_model, progress)
    models.check_chat_model(settings.judge_choices["judge"], progress)
    check_target(str(file))
    interpreting = load_settings(
        ["--model", str(file), "--judge", "none", "--interpreter", str(file), "--threads", "1"]
    )
    engine, adapter = models.load_interpreter(interpreting.settings.interpreter_model, progress)
    assert engine.tokenizer.bos == (0,)
    assert adapter is None, "a full model"


def test_a_message_names_the_flag(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"GGUF")
    progress = Progress(sys.stderr)
    flags = ["--model", str(damaged), "--arms", "sft,instruct", "--instruct", str(damaged), "--judge", "none"]
    settings = load_settings(flags).settings
    with pytest.raises(UserError, match=r"^--model .*damaged\.gguf: is no GGUF file"):
        models.load_tokenizer(settings.base_model)
    with pytest.raises(UserError, match=r"^--instruct .*damaged\.gguf: is no GGUF file"):
        models.check_instruct(settings.instruct_model, progress)
    judged = load_settings([*flags[:-1], f"hf:{damaged}"]).settings
    with pytest.raises(UserError, match=r"^--judge .*damaged\.gguf: is no GGUF file"):
        models.check_chat_model(judged.judge_choices["judge"], progress)
    with pytest.raises(UserError, match=r"^--model nowhere\.gguf: there is no such file"):
        load_settings(["--model", "nowhere.gguf", "--judge", "none"])
