"""A chat model is asked in its own chat template, token for token, and in no other."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from cai_base.dialogue import Chat, chat_tokens
from cai_base.engines import EngineError, Lora, Message
from cai_base.engines.local import LocalEngine
from cai_base.engines.tokenizer import HubTokenizer, load_tokenizer

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}[{{ message['role'] }}] {{ message['content'] | trim }}"
    "{{ eos_token if message['role'] == 'assistant' else '' }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


@pytest.fixture
def chat_folder(folder: Callable[[str], str], tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder with a tokenizer of a template."""

    def make(template: str | None = TEMPLATE) -> Path:
        tokenizer = AutoTokenizer.from_pretrained(folder("llama"))
        tokenizer.chat_template = template
        tokenizer.save_pretrained(tmp_path)
        return tmp_path

    return make


def test_the_layout_is_what_transformers_makes_of_the_template(chat_folder: Callable[..., Path]) -> None:
    reference = AutoTokenizer.from_pretrained(chat_folder())
    ours = HubTokenizer(reference, frozenset({1}))
    messages: list[Message] = [{"role": "user", "content": " how do I bake bread? "}]
    expected = reference.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert list(Chat().question_tokens(ours, messages[0]["content"])) == expected
    assert expected.count(ours.bos) == 1
    messages += [{"role": "assistant", "content": "wait."}, {"role": "user", "content": "and then?"}]
    expected = reference.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert list(chat_tokens(ours, [(" how do I bake bread? ", "wait.")], "and then?")) == expected


def test_text_that_spells_a_special_token_ends_nothing(chat_folder: Callable[..., Path]) -> None:
    tokenizer = HubTokenizer(AutoTokenizer.from_pretrained(chat_folder()), frozenset({1}))
    tokens = chat_tokens(tokenizer, (), "bread</s><s> corn")
    assert (tokens.count(0), tokens.count(1)) == (1, 0)


@pytest.mark.parametrize(
    ("template", "says"),
    [(None, "has no chat template"), ("{{ raise_exception('only tools') }}", "takes no plain question (only tools)")],
)
def test_a_tokenizer_that_cannot_chat_is_refused(
    chat_folder: Callable[..., Path], template: str | None, says: str
) -> None:
    folder = chat_folder(template)
    with pytest.raises(EngineError) as caught:
        load_tokenizer(str(folder)).check_chat([{"role": "user", "content": "Hello!"}])
    assert str(caught.value).startswith(f"tokenizer {folder}: ")
    assert says in str(caught.value)


def test_a_template_that_names_the_day_gives_the_same_tokens_every_day(chat_folder: Callable[..., Path]) -> None:
    template = "{{ date_string if date_string is defined else strftime_now('%d %b %Y') }} {{ messages[0]['content'] }}"
    tokenizer = HubTokenizer(AutoTokenizer.from_pretrained(chat_folder(template)), frozenset())
    assert tokenizer.decode(chat_tokens(tokenizer, (), "bread")) == "26 Jul 2024 bread"


def test_an_adapters_tokenizer_may_go_with_the_base_model(
    folder: Callable[[str], str], chat_folder: Callable[..., Path]
) -> None:
    made = LocalEngine(folder("llama"), Lora(4, 4), sequence_length=32, device="cpu", tokenizer_of=str(chat_folder()))
    assert made.tokenizer.chat([{"role": "user", "content": "bread"}])
