"""Who critiques, revises and compares, by `--interpreter`: the adapter itself, the base model, or another model."""

from pathlib import Path

import pytest
from engines.checkpoints import SHAPE, save_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from cai_base.cli import main
from cai_base.engines import Datum, Engine
from cai_base.errors import UserError
from cai_base.method.interpreter import Interpreter
from cai_base.models import interpreter_engine, load_engine, load_instruct
from cai_base.progress import Progress
from cai_base.run.inference import interpreter_of
from cai_base.settings.command_line import load_settings

QUIET = Progress.quiet()
TEXT = "User: How would you sweep the mill?\n\nAssistant: Take the broom."


def interpretation(name: str) -> tuple[Engine, Interpreter]:
    """The run's engine, and the interpreter that the flag names."""
    settings = load_settings(["--interpreter", name, "--threads", "1", "--lora.rank", "2"]).settings
    engine = load_engine(settings.base_model, QUIET)
    return engine, interpreter_of(settings.interpreter_model, engine, QUIET)


def logprob(engine: Engine, adapter: str | None) -> float:
    tokens = tuple(engine.tokenizer.encode(TEXT))
    return engine.compute_logprobs({adapter: [Datum(tokens, (0.0, *[1.0] * (len(tokens) - 1)))]})[adapter][0]


@pytest.mark.parametrize(("name", "interprets"), [("self", "sft/0"), ("base", None)])
def test_the_sft_adapter_or_the_base_model_interprets_in_the_runs_own_engine(name: str, interprets: str | None) -> None:
    engine, interpreter = interpretation(name)
    assert interpreter.engine is engine
    assert interpreter.model("sft/0") == interprets


def test_another_model_interprets_in_an_engine_of_its_own_for_every_seed() -> None:
    engine, interpreter = interpretation("organism:instruct")
    assert interpreter.engine is not engine
    assert interpreter.model("sft/0") == interpreter.model("sft/1") is not None
    with_sibling = load_settings(["--arms", "sft,cai,instruct", "--threads", "1"]).settings
    instruct, adapter = load_instruct(with_sibling.instruct_model, QUIET)
    weighed = logprob(interpreter.engine, interpreter.model("sft/0"))
    assert weighed == pytest.approx(logprob(instruct, adapter), rel=1e-5)
    assert weighed != pytest.approx(logprob(engine, None), rel=1e-3)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere.gguf", "--interpreter nowhere.gguf: there is no such file"),
        ("./nowhere", "--interpreter ./nowhere: there is no such folder"),
    ],
)
def test_an_interpreter_that_is_not_there_is_named_by_its_flag(name: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        interpretation(name)


@pytest.mark.parametrize("name", ["base", "organism:instruct"])
def test_an_interpreter_with_nothing_to_do_is_refused_before_a_model_is_loaded(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--arms", "sft", "--interpreter", name, "--out", str(tmp_path / "run")]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert f"--interpreter {name}: would do nothing, since no arm of this run needs critiques" in error
    assert "Loading" not in error
    assert not (tmp_path / "run").exists()


def test_a_folder_of_another_model_interprets_with_its_own_tokenizer(tmp_path: Path) -> None:
    save_tokenizer(tmp_path, bos=True)
    LlamaForCausalLM(LlamaConfig(**SHAPE | {"max_position_embeddings": 2048})).save_pretrained(tmp_path)
    engine, interpreter = interpretation(str(tmp_path))
    assert interpreter.engine is not engine
    assert interpreter.model("sft/0") is None, "a full model has no adapter"
    assert interpreter.engine.tokenizer.encode(TEXT) != engine.tokenizer.encode(TEXT)


@pytest.mark.parametrize(
    ("flags", "engine"),
    [
        ("--interpreter ./folder", "local"),
        ("--interpreter tinker:a/b", "tinker"),
        ("--engine tinker --model a/b --judge none --tinker-url http://x --interpreter c/d", "tinker"),
        ("--interpreter organism:instruct", "local"),
    ],
)
def test_the_interpreters_name_says_on_which_engine_it_is(flags: str, engine: str) -> None:
    assert interpreter_engine(load_settings(flags.split()).settings.interpreter_model) == engine
