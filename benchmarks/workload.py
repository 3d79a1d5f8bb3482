"""What every benchmark works on: models of known shapes with random weights, and texts of the packaged prompts.

The tokenizer has one token a word and its leading space, so English has about as many tokens as under Llama 3's. The
rest of a vocabulary is filler (` w5000`), so that a random model's draws are text, of one token a word, too.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from cai_base import Dialogue, Inputs, packaged, randomness
from cai_base.dialogue import END

SHAPES = {
    "tiny": LlamaConfig(
        vocab_size=2000,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    ),
    "5M": LlamaConfig(
        vocab_size=2000,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=8,
        tie_word_embeddings=True,
    ),
    "135M": LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    ),
    "3B": LlamaConfig(
        vocab_size=128256,
        hidden_size=3072,
        intermediate_size=8192,
        num_hidden_layers=28,
        num_attention_heads=24,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=True,
    ),
}
"""Shapes by name: 5M is d 256 in 6 layers, 135M is SmolLM2's, 3B is Llama 3.2's."""

PIECES = r"\n+| ?[\w']+| ?[^\w\s]+|\s"
PROMPTS = 42
"""The method's prompts, as many as in the original experiment."""


@dataclass(frozen=True, slots=True)
class TextPair:
    """One preference pair as text, each response with the end that is trained."""

    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True, slots=True)
class Workload:
    """The packaged inputs, laid out."""

    inputs: Inputs
    dialogue: Dialogue

    def examples(self) -> list[tuple[str, str]]:
        """The prompts and answers of SFT."""
        return [(self.dialogue.question(one.prompt), f" {one.response.strip()}{END}") for one in self.inputs.examples]

    def pairs(self, n: int) -> list[TextPair]:
        """`n` preference pairs on the packaged prompts; responses are 3 to 7 sentences of the packaged answers."""
        answers = [one.response for one in self.inputs.examples] + [
            text for one in self.inputs.critique_examples for text in (one.response, one.revision)
        ]
        sentences = [s for text in answers for s in re.split(r"(?<=[.!?])\s+", text) if len(s) > 20]

        def response(i: int, side: str) -> str:
            draw = randomness.stream("benchmark", i, side)
            return f" {' '.join(draw.choice(sentences, int(draw.integers(3, 8)), replace=False))}{END}"

        prompts = self.inputs.prompts
        return [
            TextPair(
                self.dialogue.question(prompts[i % len(prompts)].text), response(i, "chosen"), response(i, "rejected")
            )
            for i in range(n)
        ]


def workload() -> Workload:
    """The English inputs that come with the package."""
    inputs = packaged("english", first=PROMPTS)
    return Workload(inputs, Dialogue(inputs.few_shot, inputs.critique_examples))


def save_model(folder: Path, shape: str, device: str, work: Workload) -> None:
    """A random model of that shape, in bf16 for a GPU, and its tokenizer, in Hugging Face layout."""
    config = SHAPES[shape]
    config.max_position_embeddings = 8192
    config.initializer_range = 0.05 if shape in ("tiny", "5M") else 0.02
    config.bos_token_id = config.eos_token_id = None
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if device == "cuda" else torch.float32)
    try:
        with torch.device(device):
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    words = _vocabulary(work, int(config.vocab_size))
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), "isolated")
    tokenizer.decoder = decoders.Fuse()
    # No end token: a random model would draw it by chance, and every length here is fixed.
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(folder)


def with_end(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer with the end and padding tokens that TRL and `generate` need."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = tokenizer.eos_token or "<end>"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer


def parameters(shape: str) -> tuple[int, int]:
    """How many weights the linear layers have, and how many the head."""
    c = SHAPES[shape]
    head = c.head_dim or c.hidden_size // c.num_attention_heads
    attention = c.hidden_size * head * 2 * (c.num_attention_heads + c.num_key_value_heads)
    layer = attention + 3 * c.hidden_size * c.intermediate_size
    return int(c.num_hidden_layers * layer), int(c.hidden_size * c.vocab_size)


def _vocabulary(work: Workload, size: int) -> dict[str, int]:
    texts = [json.dumps(work.inputs.model_dump(mode="json"), ensure_ascii=False).replace("\\n", "\n")]
    texts += [text for pair in work.pairs(PROMPTS) for text in (pair.prompt, pair.chosen, pair.rejected)]
    texts += [text for one in work.inputs.constitution.principles for text in _requests(work.dialogue, one)]
    pieces = sorted({piece for text in texts for piece in re.findall(PIECES, text)})
    words = {"<unk>": 0, "<end>": 1} | {piece: i for i, piece in enumerate(pieces, start=2)}
    if len(words) > size:
        raise ValueError(f"the packaged texts have {len(words)} words, more than a vocabulary of {size}")
    return words | {f" w{i}": i for i in range(len(words), size)}


def _requests(dialogue: Dialogue, principle: object) -> tuple[str, str]:
    return dialogue.critique("x", "x", principle), dialogue.revision("x", "x", principle, "x")  # type: ignore[arg-type]
