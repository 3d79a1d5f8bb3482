"""Mistral's tekken tokenizers, of which files were published that divide text as another model's tokenizer does.

Mistral Small 3.1's tokenizer.json has Llama 3's division of text, for example. Such a file gives other tokens than the
model was trained on, and loads without an error. transformers warns of every tokenizer of a Mistral, right or wrong,
and only on the terminal. The words of the vocabulary tell which it is: none that was learned under tekken's division
is divided by it.
"""

import logging
from typing import Any

from tokenizers import Regex, decoders, models, pre_tokenizers

LARGE = 100_000
"""The least words of a vocabulary: tekken's have 131,072, and transformers looks at larger ones than this."""
TURN = "[INST]"
"""A special token of every tekken tokenizer, of base models too."""
SUSPECTED = "fix_mistral_regex"
"""What transformers sets on a tokenizer that it warns of, and the word for it in its warning."""
FOREIGN = 0.001
"""The largest share of words divided by tekken's division for which a vocabulary is one of tekken's.

Of the two vocabularies of that kind in the package mistral-common it is 0 of 148,484; Llama 3's division divides 4,188.
A vocabulary whose division takes up to three digits together has more than a thousand words of digits."""
EXAMPLE = "An iPhone's pH in 2024: //\n\n\u0915\u094b"
"""A text that every other known division divides otherwise: case, digits, a slash, a sign above or below a letter."""


def correct(tokenizer: Any) -> tuple[str, ...]:
    """Give a tokenizer the division of text that its words were learned under, if it is tekken's and it has another.

    Args:
        tokenizer: as transformers loads it; it is changed.

    Returns:
        Notes for the reader of the results, if there is something to say.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not isinstance(backend.model, models.BPE) or backend.pre_tokenizer is None:
        return ()
    suspected = getattr(backend, SUSPECTED, None) is False
    if backend.get_vocab_size() <= LARGE or not (suspected or TURN in tokenizer.get_added_vocab()):
        return ()
    own, right = backend.pre_tokenizer, pre_tokenizers.Split(Regex(_division()), "isolated")
    whole = pre_tokenizers.Sequence([right, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    if own.pre_tokenize_str(EXAMPLE) == whole.pre_tokenize_str(EXAMPLE):
        return ()
    words = _words(backend)
    divided = sum(len(right.pre_tokenize_str(word)) > 1 for word in words)
    what = f"{divided:,} of the {len(words):,} words of its vocabulary are divided by tekken's pattern"
    if divided > FOREIGN * len(words):
        return (f"The tokenizer's files divide text in another way than Mistral's tekken; that is kept, as {what}",)
    backend.pre_tokenizer = whole
    outcome = "corrected, so that prompts have the tokens that the model was trained on"
    return (f"The tokenizer's files divide text in another way than Mistral's tekken, but only {what}: {outcome}",)


def _division() -> str:
    """The published pattern, as transformers has it for GGUF files."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    return str(GGUF_PRE_TOKENIZER_SPLITS["tekken"])


def _words(backend: Any) -> list[str]:
    """The words of a byte-level vocabulary that are text, without the added tokens and without parts of characters."""
    text = decoders.ByteLevel()
    words = (text.decode([token]) for token in backend.get_vocab(with_added_tokens=False))
    return [word for word in words if "\ufffd" not in word]


class _Silent(logging.Filter):
    """Drops the warning about every tokenizer of a Mistral: it is examined here, and the results say what is wrong."""

    def filter(self, record: logging.LogRecord) -> bool:
        return SUSPECTED not in record.getMessage()


logging.getLogger("transformers.tokenization_utils_tokenizers").addFilter(_Silent())
