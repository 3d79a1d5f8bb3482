"""Random small models of three architectures, saved in Hugging Face layout with a byte-level tokenizer."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, MistralConfig, PreTrainedTokenizerFast, Qwen3Config

from cai_base.engines import Lora
from cai_base.engines.local import LocalEngine, masks

VOCABULARY = 320
CORPUS = [
    "the baker sells bread and the miller grinds corn",
    "User: how do I bake bread?\n\nAssistant: knead the dough, wait, and bake it.\n\nUser:",
    "she said that the bread is warm, and that the dough is not",
]
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.15,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "attention_dropout": 0.0,
}
CONFIGS = {
    "llama": LlamaConfig(**SHAPE, tie_word_embeddings=False),
    "qwen3": Qwen3Config(**SHAPE, head_dim=16, tie_word_embeddings=True),
    "mistral": MistralConfig(**SHAPE, sliding_window=None),
    "windowed": MistralConfig(**SHAPE, sliding_window=24),
}
LORA = Lora(rank=4, alpha=8)
LENGTH = 96
"""The longest sequence that the tests' engines are made for."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from threads, and two of them beside another busy process collapse."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def hidden_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models do not tell that they have a sliding window, as an architecture of another kind would not."""
    monkeypatch.setattr(masks.Masks, "of", classmethod(lambda cls, model: cls(None, by_type=False, additive=None)))


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test sees what another has left in the cache."""
    monkeypatch.setenv("CAI_BASE_CACHE", str(tmp_path_factory.mktemp("cache")))


def save_tokenizer(folder: Path, *, bos: bool) -> None:
    """A byte-level BPE tokenizer, with `<s>` before every text as Llama's has, or without as Qwen's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>" if bos else None, eos_token="</s>"
    ).save_pretrained(folder)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The folder of a model, by its key in `CONFIGS`."""
    made: dict[str, str] = {}

    def get(kind: str) -> str:
        if kind not in made:
            path = tmp_path_factory.mktemp(kind)
            torch.manual_seed(list(CONFIGS).index(kind))
            model = transformers.AutoModelForCausalLM.from_config(CONFIGS[kind])
            model.save_pretrained(path)
            save_tokenizer(path, bos=kind != "qwen3")
            made[kind] = str(path)
        return made[kind]

    return get


@pytest.fixture
def engine(folder: Callable[[str], str]) -> Callable[..., LocalEngine]:
    """A fresh engine on the model with that key."""

    def make(
        kind: str = "llama",
        *,
        lora: Lora = LORA,
        length: int = LENGTH,
        pack: bool = True,
        rows: int = 256,
        findings: dict[str, Any] | None = None,
    ) -> LocalEngine:
        return LocalEngine(
            folder(kind), lora, sequence_length=length, pack=pack, rows=rows, device="cpu", findings=findings
        )

    return make
