"""What the small checkpoints of these tests are made of: their shape, their tokenizer, the shape of adapters."""

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from cai_base.engines import Lora

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
LORA = Lora(rank=4, alpha=8)
LENGTH = 96
"""The longest sequence that the tests' engines are made for."""


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
