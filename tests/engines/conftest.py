"""Random small models, saved in Hugging Face layout with a byte-level tokenizer."""

from collections.abc import Callable, Iterator

import pytest
import torch
import transformers
from checkpoints import LENGTH, LORA, SHAPE, save_tokenizer
from transformers import LlamaConfig, MistralConfig, Qwen3Config

from cai_base.engines import Findings, Lora
from cai_base.engines.local import LocalEngine, large_head, masks

CONFIGS = {
    "llama": LlamaConfig(**SHAPE, tie_word_embeddings=False),
    "qwen3": Qwen3Config(**SHAPE, head_dim=16, tie_word_embeddings=True),
    "mistral": MistralConfig(**SHAPE, sliding_window=None),
    "windowed": MistralConfig(**SHAPE, sliding_window=24),
    # Its weights are put in oneDNN's order, and its window ends within the prefix that prompts share.
    "large": MistralConfig(**SHAPE | {"vocab_size": large_head.LARGE + 100}, sliding_window=8),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from threads, and two of them beside another busy process collapse."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def hidden_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides the models' sliding window from the engine, like an unknown architecture."""
    monkeypatch.setattr(masks.Masks, "of", classmethod(lambda cls, model: cls(None, by_type=False, additive=None)))


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test sees what another has left in the cache."""
    monkeypatch.setenv("CAI_BASE_CACHE", str(tmp_path_factory.mktemp("cache")))


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
        findings: Findings | None = None,
    ) -> LocalEngine:
        return LocalEngine(
            folder(kind), lora, sequence_length=length, pack=pack, rows=rows, device="cpu", findings=findings
        )

    return make
