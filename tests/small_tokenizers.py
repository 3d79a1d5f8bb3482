"""Small tokenizers that cut text as those of well-known models do, trained in a moment on a few dialogues."""

import json
from collections.abc import Sequence
from functools import cache

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from cai_base.engines.tokenizer import HubTokenizer


class Letters:
    """A tokenizer whose tokens are characters.

    Args:
        bos: the first token of every text, if there is one.
    """

    eos: frozenset[int] = frozenset()

    def __init__(self, bos: int | None = None) -> None:
        self.bos = () if bos is None else (bos,)

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(map(chr, tokens))


LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_START, _SHORT = r"[^\r\n\p{L}\p{N}]?", "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K = (
    rf"{_START}{_UPPER}*{_LOWER}+{_SHORT}|{_START}{_UPPER}+{_LOWER}*{_SHORT}|\p{{N}}{{1,3}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = O200K.replace(_SHORT, "").replace(r"\p{N}{1,3}", r"\p{N}")
"""The pre-tokenisation of these models in `tokenizer.json`; o200k is gpt-oss's, tekken that of later Mistrals."""

PATTERNS = {"llama-3": LLAMA_3, "qwen": QWEN, "o200k": O200K, "tekken": TEKKEN}
KINDS = (*PATTERNS, "gpt-2", "llama-2", "gemma")
CROSSING = "crossing"
"""A tokenizer that cuts no words, so that a token may begin in a prompt and end in its continuation."""

CORPUS = [
    f"User: {question}\n\nAssistant: {answer}\n\n"
    for question in ("How do I knead dough?", "One?", "And then?", "How do I bake bread?")
    for answer in ("Fold it.", "Fold it, and wait.", "Wait an hour!", "1. Fold it.\n2. Wait 12 minutes.", "Two.")
] * 3


@cache
def tokenizer_of_kind(kind: str) -> HubTokenizer:
    """A tokenizer of one of `KINDS`, or the one that is `CROSSING`."""
    if kind in ("llama-2", "gemma"):
        return _hub(_sentencepiece(kind), bos=True)
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind == "gpt-2")
    words = PATTERNS.get(kind)
    tokenizer.pre_tokenizer = (
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(words), "isolated"), byte_level]) if words else byte_level
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    _train(tokenizer, 600, ["<s>", "</s>"], alphabet)
    return _hub(tokenizer, bos=kind in ("llama-3", "tekken"))


def _sentencepiece(kind: str) -> Tokenizer:
    """As Llama 2 (with a space before every text) and Gemma: no words, spaces as letters, bytes for what is unknown."""
    start = [normalizers.Prepend("▁")] if kind == "llama-2" else []
    normalizer = normalizers.Sequence([*start, normalizers.Replace(" ", "▁")])
    learner = Tokenizer(models.BPE(unk_token="<unk>"))
    learner.normalizer = normalizer
    learner.pre_tokenizer = pre_tokenizers.Sequence(  # SentencePiece learns no token across words or line breaks
        [pre_tokenizers.Split("▁", "merged_with_next"), pre_tokenizers.Split(Regex(r"\n+"), "isolated")]
    )
    _train(learner, 300, ["<s>", "</s>", "<unk>"], [])
    learned = json.loads(learner.to_str())["model"]
    vocabulary = {token: number for token, number in learned["vocab"].items() if "\n" not in token or kind == "gemma"}
    merges = [tuple(pair) for pair in learned["merges"] if "".join(pair) in vocabulary]
    symbols = [*vocabulary, *(f"<0x{byte:02X}>" for byte in range(256))]
    numbers = {symbol: number for number, symbol in enumerate(symbols)}
    tokenizer = Tokenizer(models.BPE(numbers, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizer
    strip = [decoders.Strip(" ", 1, 0)] if kind == "llama-2" else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return tokenizer


def _train(tokenizer: Tokenizer, size: int, special: list[str], alphabet: list[str]) -> None:
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)


def _hub(tokenizer: Tokenizer, *, bos: bool) -> HubTokenizer:
    if bos:
        first = [("<s>", tokenizer.token_to_id("<s>"))]
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=first)
    return HubTokenizer(
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>" if bos else None, eos_token="</s>")
    )
