"""What a model's folder makes this process do comes to an end: loops of a template, patterns, texts that double."""

import json
import resource
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
from checkpoints import save_tokenizer
from safetensors.torch import save_file

from cai_base.engines import EngineError, tokenizer
from cai_base.engines.limits import TimeLimitError, limited
from cai_base.engines.local import peft_format
from cai_base.engines.local.lora import Place
from cai_base.engines.tokenizer import HubTokenizer, load_tokenizer
from cai_base.errors import UserError

SHORT = partial(limited, 0.3)
MESSAGES = [{"role": "user", "content": "Hello!"}]
NAME = "model.layers.0." + "a" * 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_tokenizer(folder, bos=True)
    return folder


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "more than 0.3 seconds"),
        (
            "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
            "more than 0.3 seconds",
        ),
        ("{% set n = 10 ** messages | length %}{{ n ** (n ** 8) }}", "more than 0.3 seconds"),
        (
            "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
            "takes",  # the memory, or on a slow machine the time before it
        ),
        ("{{ messages[0]['content'] | center(10 ** 11) }}", "too much memory"),
    ],
)
def test_a_chat_template_that_does_not_end_is_refused_in_a_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, template: str, said: str
) -> None:
    monkeypatch.setattr(tokenizer, "limited", SHORT)
    (folder / "chat_template.jinja").write_text(template)
    loaded = load_tokenizer(str(folder))
    began, limits = time.process_time(), resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(EngineError, match=f"its chat template does not come to an end .*{said}"):
        loaded.check_chat(MESSAGES)
    assert time.process_time() - began < 3
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
    assert resource.getrlimit(resource.RLIMIT_AS) == limits


def test_a_chat_template_that_writes_far_more_than_a_conversation_is_refused(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}{{ 'a' * 1000000 }}")
    with pytest.raises(EngineError, match="its chat template makes a text of 1,000,006 characters of a conversation"):
        load_tokenizer(str(folder)).check_chat(MESSAGES)


def test_in_a_thread_of_a_server_a_chat_template_has_the_same_time_and_nothing_is_raised_later(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "limited", SHORT)
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    (folder / "chat_template.jinja").write_text(endless)
    loaded = load_tokenizer(str(folder))
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    short = load_tokenizer(str(folder))

    def answer() -> float:
        with pytest.raises(EngineError, match=r"its chat template does not come to an end .*more than 0.3 seconds"):
            loaded.check_chat(MESSAGES)
        took = time.thread_time()
        while time.thread_time() < took + 0.5:  # the limit of the template is none of what follows it
            short.check_chat(MESSAGES)
        return took

    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(answer).result(timeout=300) < 3
    assert not [thread for thread in threading.enumerate() if thread.name == "limit"]


def test_a_program_without_end_is_ended_even_where_it_swallows_errors() -> None:
    began = time.process_time()

    def endless() -> None:
        for is_first in (True, False):
            try:
                while True:
                    pass
            except TimeLimitError:
                if not is_first:
                    raise

    with pytest.raises(TimeLimitError), limited(0.2):
        endless()
    assert time.process_time() - began < 3


def test_a_tokenizer_with_a_pattern_that_tries_too_many_ways_is_refused_in_a_sentence(tmp_path: Path) -> None:
    save_tokenizer(tmp_path, bos=True)
    file = tmp_path / "tokenizer.json"
    content = json.loads(file.read_text())
    content["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"Regex": "(a+)+$"},
        "behavior": "Isolated",
        "invert": False,
    }
    file.write_text(json.dumps(content))
    began = time.process_time()
    loaded: HubTokenizer = load_tokenizer(str(tmp_path))
    with pytest.raises(EngineError, match=r"its tokenizer cannot divide a text of 61 characters \(.*retry-limit"):
        loaded.encode("a" * 60 + "b")
    assert time.process_time() - began < 5


@pytest.mark.parametrize("field", ["target_modules", "exclude_modules", "rank_pattern", "alpha_pattern"])
def test_an_adapter_with_a_pattern_that_tries_too_many_ways_is_refused_in_a_sentence(
    field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peft_format, "limited", SHORT)
    pattern = r"model.layers.0.(a+)+b"
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": "all-linear"}
    config[field] = {pattern: 2} if field.endswith("_pattern") else pattern
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    tensors = {
        f"base_model.model.{NAME}.lora_{half}.weight": torch.ones(shape)
        for half, shape in {"A": (2, 3), "B": (3, 2)}.items()
    }
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    began = time.process_time()
    with pytest.raises(UserError, match=r"adapter_config.json: its patterns cannot be matched \(it takes more"):
        peft_format.read(tmp_path, peft_format.shape(tmp_path), [Place(NAME, 3, 3, 2)])
    assert time.process_time() - began < 3


@pytest.mark.parametrize("pattern", ["a{99999999999}", "(" * 5000 + ")" * 5000, "("])
def test_a_pattern_that_cannot_be_read_is_refused_in_a_sentence(pattern: str, tmp_path: Path) -> None:
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": pattern}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    save_file({"a": torch.ones(1)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(UserError, match=r"target_modules is .*, which selects no layers"):
        peft_format.shape(tmp_path)
