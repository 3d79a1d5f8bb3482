"""Malformed models, tokenizers, chat templates, GGUF files and judges' answers: refused in one sentence, or read."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from engines.checkpoints import save_tokenizer
from fuzz.mutations import as_json, spoiled_bytes, spoiled_values
from fuzz.test_fuzz import DATA, many, refused_or_accepted
from hypothesis import given
from hypothesis import strategies as st

from cai_base import models
from cai_base.evaluation.judges.question import read_answer
from cai_base.inputs.labels import load_labels
from cai_base.inputs.rubrics import load_rubric

SHAPE = {
    "vocab_size": 300,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] | trim }}{% if not loop.last %}"
    "{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers, with a byte-level tokenizer and a chat template."""
    folder = tmp_path_factory.mktemp("fuzz") / "model"
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE)).save_pretrained(folder)
    save_tokenizer(folder, bos=True)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("CAI_BASE_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def restored(model: Path) -> Iterator[Callable[[str], bytes]]:
    """The content of a model's file, which is put back at the end."""
    contents: dict[str, bytes] = {}

    def content(name: str) -> bytes:
        contents[name] = (model / name).read_bytes()
        return contents[name]

    yield content
    for name, data in contents.items():
        (model / name).write_bytes(data)


def load(folder: Path) -> None:
    models.load_model(folder, longest=32, threads=1)


def ask(folder: Path) -> None:
    """Lay out a conversation, as a judge's model is checked."""
    from cai_base.engines.tokenizer import load_tokenizer

    load_tokenizer(str(folder)).check_chat([{"role": "user", "content": "Hello!"}])


@pytest.mark.parametrize(
    ("name", "read", "times"),
    [
        ("config.json", load, 40),
        ("generation_config.json", load, 20),
        ("tokenizer_config.json", ask, 40),
        ("tokenizer.json", ask, 40),
    ],
)
def test_odd_values_in_a_model_s_settings_are_refused_in_a_sentence_or_taken(
    model: Path, restored: Callable[[str], bytes], name: str, read: Callable[[Path], None], times: int
) -> None:
    valid = json.loads(restored(name))
    assert refused_or_accepted(lambda: read(model)), "what is not spoiled is read"

    @many(times)
    @given(value=spoiled_values(valid))
    def odd(value: Any) -> None:
        (model / name).write_bytes(as_json(value))
        refused_or_accepted(lambda: read(model))

    odd()


@pytest.mark.parametrize(
    ("name", "read", "times"),
    [("model.safetensors", load, 30), ("tokenizer.json", ask, 30), ("chat_template.jinja", ask, 60)],
)
def test_a_spoiled_file_of_a_model_is_refused_in_a_sentence_or_read(
    model: Path, restored: Callable[[str], bytes], name: str, read: Callable[[Path], None], times: int
) -> None:
    valid = restored(name)

    @many(times)
    @given(data=spoiled_bytes(valid))
    def spoiled(data: bytes) -> None:
        (model / name).write_bytes(data)
        refused_or_accepted(lambda: read(model))

    spoiled()


RUBRIC = load_rubric(DATA / "rubrics/attack.toml")
ANSWER = json.dumps({field.name: False if field.type == "yes-no" else "why" for field in RUBRIC.fields}).encode()


@many(150)
@given(data=spoiled_bytes(ANSWER), response=st.text(max_size=20))
def test_a_spoiled_answer_of_a_judge_is_unscored_or_whole(data: bytes, response: str) -> None:
    answer = read_answer(RUBRIC, data.decode("utf-8", "replace"), response)
    assert hasattr(answer, "reason") or set(answer) == {field.name for field in RUBRIC.fields}  # type: ignore[arg-type]


def test_a_spoiled_table_of_labels_is_refused_in_a_sentence_or_read(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    valid = b"prompt,completion,final_label\nWhere?,There.,1_full_compliance\nHow?,I would rather not.,full_refusal\n"
    file.write_bytes(valid)
    assert refused_or_accepted(lambda: load_labels(file))

    @many(100)
    @given(data=spoiled_bytes(valid))
    def spoiled(data: bytes) -> None:
        file.write_bytes(data)
        refused_or_accepted(lambda: load_labels(file))

    spoiled()
