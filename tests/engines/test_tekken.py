"""Mistral's tekken tokenizers whose files divide text as another model's do: corrected, and said."""

import itertools
import json
from pathlib import Path

import pytest
from checkpoints import SHAPE
from small_tokenizers import PATTERNS, tokenizer_of_kind
from tokenizers import Regex, Tokenizer, pre_tokenizers
from transformers import MistralConfig, MistralForCausalLM

from cai_base.engines import tekken
from cai_base.engines.local import LocalEngine
from cai_base.engines.tokenizer import HubTokenizer, load_tokenizer

TEXT = "Wait 12 minutes. The pH of an iPhone, 12% more //\n\nend"


def save(folder: Path, division: str, *, special: str = "[INST]", learned: tuple[str, ...] = ()) -> Path:
    """A folder with a tokenizer.

    Args:
        folder: where to.
        division: a kind of `small_tokenizers`, whose words it has, too.
        special: a special token that it has.
        learned: further words that it has.
    """
    tokenizer = tokenizer_of_kind(division)._tokenizer
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    words = content["model"]["vocab"]
    for word in (special, *learned):
        words.setdefault(word, len(words))
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    content["added_tokens"].append({"id": words[special], "content": special, "special": True, **plain})
    file.write_text(json.dumps(content))
    return folder


def tokens(folder: Path, division: str) -> list[int]:
    """What the library of tokenizers makes of the text with these words and this division."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    split = pre_tokenizers.Split(Regex(PATTERNS[division]), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    ids: list[int] = tokenizer.encode(TEXT, add_special_tokens=False).ids
    return ids


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vocabularies of this size are as large as Mistral's."""
    monkeypatch.setattr(tekken, "LARGE", 200)
    monkeypatch.setattr(tekken, "FOREIGN", 0.02)


@pytest.mark.usefixtures("small")
def test_a_mistral_whose_files_divide_text_as_llama_3_has_the_tokens_of_its_own_division_and_says_so(
    tmp_path: Path,
) -> None:
    folder = save(tmp_path / "model", "llama-3")
    MistralForCausalLM(MistralConfig(**{**SHAPE, "vocab_size": 700})).save_pretrained(folder)
    engine = LocalEngine(str(folder), None, sequence_length=32, device="cpu")
    (note,) = [note for note in engine.notes if "tekken" in note]
    assert "another way than Mistral's tekken" in note
    assert "corrected" in note
    assert engine.tokenizer.encode(TEXT) == tokens(folder, "tekken") != tokens(folder, "llama-3")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("division", "special"), [("tekken", "[INST]"), ("llama-3", "<|im_start|>")])
def test_a_tokenizer_that_divides_text_rightly_or_is_no_mistrals_is_taken_as_it_is(
    tmp_path: Path, division: str, special: str
) -> None:
    tokenizer = load_tokenizer(str(save(tmp_path, division, special=special)))
    assert tokenizer.notes == ()
    assert tokenizer.encode(TEXT) == tokens(tmp_path, division)


@pytest.mark.usefixtures("small")
def test_another_vocabulary_with_mistrals_turns_keeps_its_division(tmp_path: Path) -> None:
    numbers = tuple(map(str, range(100, 200)))  # as Llama 3 has them, which takes three digits together
    tokenizer = load_tokenizer(str(save(tmp_path, "llama-3", learned=numbers)))
    (note,) = tokenizer.notes
    assert "that is kept" in note
    assert tokenizer.encode(TEXT) == tokens(tmp_path, "llama-3")


def test_a_folder_that_transformers_only_warns_of_on_the_terminal_is_corrected(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    unused = ("zq" + "".join(letters) for letters in itertools.product("abcdefghijklmnopqrstuvwxyz", repeat=4))
    save(tmp_path, "llama-3", special="<|x|>", learned=tuple(itertools.islice(unused, 100_001)))
    (tmp_path / "config.json").write_text('{"model_type": "mistral", "transformers_version": "4.50.0"}')
    tokenizer: HubTokenizer = load_tokenizer(str(tmp_path))
    assert "corrected" in tokenizer.notes[0]
    assert tokenizer.encode(TEXT) == tokens(tmp_path, "tekken")
    assert "incorrect regex" not in capfd.readouterr().err
