"""From settings to engines: every message has the user's flag, and a model is loaded into the engine of its flags."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer, BertConfig, BertLMHeadModel

from cai_base import embedded, models
from cai_base.engines import EngineError
from cai_base.errors import UserError
from cai_base.progress import Progress
from cai_base.settings.command_line import load_settings
from cai_base.settings.schema import RunSettings

CHAT = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def settings(*flags: str) -> RunSettings:
    return load_settings([*flags, "--threads", "1"])[0]


@pytest.fixture
def looks_ahead(folder: Callable[[str], str], tmp_path: Path) -> Path:
    """The folder of a chat model that is not causal."""
    path = Path(shutil.copytree(folder("llama"), tmp_path / "bert"))
    shape = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertLMHeadModel(BertConfig(**shape, intermediate_size=64, initializer_range=0.2)).save_pretrained(path)
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(path)
    return path


def test_a_model_that_is_not_causal_is_named_by_the_flag_that_gave_it(looks_ahead: Path) -> None:
    with pytest.raises(UserError, match=f"--model {looks_ahead}: BertLMHeadModel is not causal"):
        models.load_engine(settings("--model", str(looks_ahead), "--judge", "none").base_model, Progress())
    judged = settings("--judge", f"hf:{looks_ahead}")
    with pytest.raises(UserError, match=f"--judge {looks_ahead}: BertLMHeadModel is not causal"):
        models.load_chat_model(judged.judge_choices["judge"], Progress())
    instruct = settings("--arms", "sft,instruct", "--instruct", str(looks_ahead))
    with pytest.raises(UserError, match=f"--instruct {looks_ahead}: BertLMHeadModel is not causal"):
        models.load_instruct(instruct.instruct_model, Progress())


def test_the_tokenizer_of_a_base_model_is_named_by_the_flag_that_gave_it(tmp_path: Path) -> None:
    given = settings("--model", str(tmp_path), "--judge", "none")
    with pytest.raises(UserError, match=f"--model {tmp_path}: its tokenizer cannot be loaded"):
        models.load_tokenizer(given.base_model)
    folder = tmp_path / "gone"
    given = settings("--engine", "tinker", "--model", "a/b", "--judge", "none", "--tokenizer", str(folder))
    with pytest.raises(UserError, match=f"--tokenizer {folder}: there is no such folder"):
        models.load_tokenizer(given.base_model)
    assert models.load_tokenizer(settings().base_model).encode("bread")


def test_an_adapter_of_another_model_is_refused_with_the_flag_that_helps(tmp_path: Path) -> None:
    adapter = Path(shutil.copytree(embedded.sibling(), tmp_path / "adapter"))
    text = (adapter / "adapter_config.json").read_text()
    (adapter / "adapter_config.json").write_text(text.replace('"r": ', '"r": 1'))
    with pytest.raises(UserError, match=f"^{adapter}: not an adapter of this model and rank .*: give --base$"):
        models.load_any(settings().sampled_model, adapter, "MODEL", Progress())
    with pytest.raises(UserError, match=f"^--instruct {adapter}: not an adapter .* that was trained on organism$"):
        models.load_instruct(settings("--arms", "sft,instruct", "--instruct", str(adapter)).instruct_model, Progress())


def test_an_error_of_an_engine_names_its_own_argument_where_no_flag_is_known() -> None:
    error = EngineError("rank", 9, "too high", "give less")
    assert str(error) == "rank 9: too high; give less"
    assert isinstance(error, UserError), "it ends a command as any wrong input does"
    with (
        pytest.raises(UserError, match=r"^--lora\.rank 9: too high; give less$"),
        models.named({"rank": "--lora.rank"}),
    ):
        raise error
    with pytest.raises(UserError, match=r"^tokenizer: none; give one$"), models.named({}):
        raise EngineError("tokenizer", None, "none", "give one")


def test_a_service_loads_no_adapter(tmp_path: Path) -> None:
    given = settings("--engine", "tinker", "--model", "a/b", "--judge", "none")
    with pytest.raises(UserError, match="--engine tinker cannot load a PEFT adapter; leave --engine tinker out"):
        models.load_any(given.sampled_model, tmp_path, "MODEL", Progress())


def test_a_service_that_cannot_be_used_is_named_by_what_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tinker", None)
    served = settings("--judge", "tinker:c/d", "--tinker-url", "http://127.0.0.1:9")
    given = settings("--engine", "tinker", "--model", "a/b", "--judge", "none")
    with pytest.raises(UserError, match=r"^--judge tinker: the Tinker SDK is not installed"):
        models.load_chat_model(served.judge_choices["judge"], Progress())
    with pytest.raises(UserError, match=r"^--engine tinker: the Tinker SDK is not installed"):
        models.load_engine(given.base_model, Progress())
