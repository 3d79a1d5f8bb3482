"""A chat model is asked in its own chat template, token for token, and in no other."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from small_tokenizers import KINDS, tokenizer_of_kind
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
    assert expected.count(*ours.bos) == 1
    messages += [{"role": "assistant", "content": "wait."}, {"role": "user", "content": "and then?"}]
    expected = reference.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert list(chat_tokens(ours, [(" how do I bake bread? ", "wait.")], "and then?")) == expected


def test_text_that_spells_a_special_token_ends_nothing(chat_folder: Callable[..., Path]) -> None:
    tokenizer = HubTokenizer(AutoTokenizer.from_pretrained(chat_folder()), frozenset({1}))
    tokens = chat_tokens(tokenizer, (), "bread</s><s> corn")
    assert (tokens.count(0), tokens.count(1)) == (1, 0)


@pytest.mark.parametrize(
    ("start", "answered"),
    [
        ("<s>[INST] {} [/INST]", " {} </s>"),  # Llama 2 and Mistral
        ("<s>[INST] {} [/INST]", "{}</s>"),
        ("<s>user\n{}</s>\nassistant\n", "{}</s>\n"),  # Zephyr, TinyLlama
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_has_the_tokens_that_the_template_gives_it(kind: str, start: str, answered: str) -> None:
    """Llama 2's tokenizer puts a space before every text, so an answer encoded by itself begins with one too many."""
    before, after = start.split("{}")
    written = answered.replace("{}", "' + messages[1].content + '")
    ours = tokenizer_of_kind(kind)
    reference = ours._tokenizer
    reference.chat_template = (
        f"{{{{ '{before}' + messages[0].content + '{after}' }}}}"
        f"{{% if messages | length > 1 %}}{{{{ '{written}' }}}}{{% endif %}}"
    ).replace("\n", "\\n")
    for text in ("Fold it, and wait.", "1. Fold it."):
        turns = [{"role": "user", "content": "One?"}, {"role": "assistant", "content": text}]
        whole = reference.apply_chat_template(turns, return_dict=False)
        question, answer = Chat().answer_tokens(ours, "One?", text)
        assert (*question, *answer) == tuple(whole[: len(question) + len(answer)])
        asked = reference.apply_chat_template(turns[:1], add_generation_prompt=True, return_dict=False)
        assert question == tuple(asked[: len(question)])
        assert ours.decode(answer).strip() == text


def test_the_token_that_ends_an_assistants_turn_ends_an_answer(folder: Callable[[str], str], tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder("llama"))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    tokenizer.chat_template = (
        "{% for message in messages %}[{{ message.role }}] {{ message.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    ours = HubTokenizer(tokenizer, frozenset({1}))
    ours.end_turns()
    assert ours.eos == {1, tokenizer.convert_tokens_to_ids("<|im_end|>")}
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_end|>", " Over.")
    ours = HubTokenizer(tokenizer, frozenset({1}))
    ours.end_turns()
    assert ours.eos == {1}, "words end no text"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (None, "has no chat template"),
        ("{{ ['Hi', 'Hello'] | random }}", "draws at random, so no two runs would ask the same (random)"),
        ("{{ lipsum(1) }}", "draws at random, so no two runs would ask the same (lipsum)"),
        ("{{ raise_exception('only tools') }}", "does not accept a plain question (only tools)"),
    ],
)
def test_a_tokenizer_that_cannot_chat_is_refused(
    chat_folder: Callable[..., Path], template: str | None, says: str
) -> None:
    folder = chat_folder(template)
    with pytest.raises(EngineError) as caught:
        load_tokenizer(str(folder)).check_chat([{"role": "user", "content": "Hello!"}])
    assert str(caught.value).startswith(f"tokenizer {folder}: ")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ 1 // 0 }}", "division"),
        ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "recursion"),
        ("{{ messages[0]['content'] + 1 }}", "concatenate"),
        ("{{ messages[0]() }}", "not callable"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "range"),
        ("{{ messages.append(1) }}", "append"),
        ("{{ ''.__class__.__mro__ }}", "does not accept a plain question"),
        ("{{ 'a' * 10 ** 19 }}", "does not accept a plain question"),
        ("{% if %}", "does not accept a plain question"),
    ],
)
def test_a_template_that_fails_is_refused_in_one_sentence(
    chat_folder: Callable[..., Path], template: str, says: str
) -> None:
    folder = chat_folder(template)
    with pytest.raises(EngineError) as caught:
        load_tokenizer(str(folder)).check_chat([{"role": "user", "content": "Hello!"}])
    assert str(caught.value).startswith(f"tokenizer {folder}: its chat template does not accept a plain question (")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_named_templates_without_a_default_are_refused_and_with_one_it_is_taken(
    chat_folder: Callable[..., Path],
) -> None:
    named = {"rag": "{{ documents }}", "tool_use": "{{ tools }}"}
    folder = chat_folder(named)
    with pytest.raises(EngineError, match=r"special uses only \(rag, tool_use\), and no default"):
        load_tokenizer(str(folder)).check_chat([{"role": "user", "content": "Hello!"}])
    tokenizer = load_tokenizer(str(chat_folder(named | {"default": "[{{ messages[0]['content'] }}]"})))
    assert tokenizer.decode(chat_tokens(tokenizer, (), "bread")) == "[bread]"


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        ("{{ date_string if date_string is defined else strftime_now('%d %b %Y') }}", "26 Jul 2024"),
        ("{{ strftime_now('%Y-%m-%d') }}", "2024-07-26"),
        (
            "{%- if strftime_now is defined %}{%- set day = strftime_now('%A, %-d %B') %}{%- endif %}{{ day }}",
            "Friday, 26 July",
        ),
        ("{% macro day() %}{{ strftime_now('%H:%M:%S') }}{% endmacro %}{{ day() }}", "00:00:00"),
        ("{% set form = '%B %Y' %}\n{{ strftime_now(form) | upper }}", "JULY 2024"),
    ],
)
def test_a_template_that_names_the_day_gives_the_same_tokens_every_day(
    chat_folder: Callable[..., Path], template: str, shown: str
) -> None:
    folder = chat_folder(template + " {{ messages[0]['content'] }}")
    tokenizer = HubTokenizer(AutoTokenizer.from_pretrained(folder), frozenset())
    assert tokenizer.decode(chat_tokens(tokenizer, (), "bread")) == f"{shown} bread"


@pytest.mark.parametrize("start", ["", "\n", "  \n", "  {% if true %}x{% endif %}\n", "{#- none #}\n", "{{- 'x' }}\n"])
def test_a_fixed_day_changes_nothing_else_of_a_template(chat_folder: Callable[..., Path], start: str) -> None:
    """The expected text is what transformers makes of the same template without the day."""
    rest = "{% for message in messages %}\n  {{ message['content'] }}\n{% endfor %}\n"
    wanted = AutoTokenizer.from_pretrained(chat_folder(f"{start}26{rest}")).apply_chat_template(
        [{"role": "user", "content": "bread"}], add_generation_prompt=True, return_dict=False
    )
    template = f"{start}{{{{ strftime_now('%d') }}}}{rest}"
    tokenizer = HubTokenizer(AutoTokenizer.from_pretrained(chat_folder(template)), frozenset())
    assert list(chat_tokens(tokenizer, (), "bread")) == wanted


@pytest.mark.parametrize("switch", ["enable_thinking", "thinking"])
def test_thinking_is_switched_off_where_the_template_has_a_switch(
    chat_folder: Callable[..., Path], switch: str
) -> None:
    template = TEMPLATE + f"{{% if {switch} is defined and not {switch} %}}(no thoughts){{% endif %}}"
    folder = str(chat_folder(template))
    off, kept = load_tokenizer(folder, thinking=False), load_tokenizer(folder)
    assert off.decode(chat_tokens(off, (), "bread")).endswith("(no thoughts)")
    assert not kept.decode(chat_tokens(kept, (), "bread")).endswith("(no thoughts)")
    plain = str(chat_folder())
    off, kept = load_tokenizer(plain, thinking=False), load_tokenizer(plain)
    assert chat_tokens(off, (), "bread") == chat_tokens(kept, (), "bread")


def test_another_tokenizer_with_more_tokens_than_the_model_embeds_is_refused(
    folder: Callable[[str], str], chat_folder: Callable[..., Path]
) -> None:
    larger = chat_folder()
    tokenizer = AutoTokenizer.from_pretrained(larger)
    tokenizer.add_tokens(["<|turn|>"])
    tokenizer.save_pretrained(larger)
    with pytest.raises(EngineError) as caught:
        LocalEngine(folder("llama"), Lora(4, 4), sequence_length=32, device="cpu", tokenizer_of=str(larger))
    assert str(caught.value).startswith(f"tokenizer {larger}: its tokenizer has 321 tokens, but ")


def test_a_token_outside_the_embedding_is_refused_when_it_occurs(chat_folder: Callable[..., Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(chat_folder())
    tokenizer.add_tokens(["<|turn|>"])
    ours = HubTokenizer(tokenizer, frozenset(), vocabulary=320)
    assert ours.encode("bread")
    with pytest.raises(EngineError, match=r"its token 320 \('<\|turn\|>'\) is beyond the 320 tokens"):
        ours.encode("bread <|turn|>")


def test_an_adapters_tokenizer_may_go_with_the_base_model(
    folder: Callable[[str], str], chat_folder: Callable[..., Path]
) -> None:
    made = LocalEngine(folder("llama"), Lora(4, 4), sequence_length=32, device="cpu", tokenizer_of=str(chat_folder()))
    assert made.tokenizer.chat([{"role": "user", "content": "bread"}])


@pytest.mark.parametrize("value", ["long", "512", "", [512], {"tokens": 512}])
def test_a_longest_text_that_is_no_number_is_refused_in_a_sentence(
    chat_folder: Callable[..., Path], value: object
) -> None:
    folder = chat_folder()
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": value}))
    with pytest.raises(EngineError, match=r"model_max_length in its tokenizer_config.json is .*; give a number"):
        load_tokenizer(str(folder))
