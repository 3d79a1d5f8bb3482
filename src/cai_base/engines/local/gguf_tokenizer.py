"""What a GGUF file says of its tokenizer beyond what transformers takes from it: added, or refused by name.

A file names how text is divided before merges (`tokenizer.ggml.pre`). transformers knows some of these names and falls
back to GPT-2's division for every other, without a word. What a name means is what llama.cpp does under it.
"""

from collections.abc import Mapping
from typing import Any

from tokenizers import pre_tokenizers

from cai_base.engines import EngineError
from cai_base.engines.local.gguf_meaning import REMEDY
from cai_base.reading import quote

FIELDS = ("model", "pre", "add_bos_token", "add_space_prefix")
"""The fields of `tokenizer.ggml` that are read here."""
WHOLE_WORDS = (
    *("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"),
    "tekken",
)
"""A word of the vocabulary is one token whatever the merges say, and a text has a first token unless told otherwise."""
AS_GPT_2 = (
    *("gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4"),
    *("gigachat", "a.x-4.0", "mellum"),
)
DIGITS_APART = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2")
"""Each digit alone, and the rest as GPT-2."""


def complete(model: str, fields: Mapping[str, Any], tokenizer: Any) -> None:
    """Add to a tokenizer what its file says and transformers did not take.

    Args:
        model: the file's name, for messages.
        fields: those of `FIELDS` that the file has.
        tokenizer: as transformers made it of the file; it is changed.

    Raises:
        EngineError: the file's division of text is not known here.
    """
    if fields.get("model") == "llama":
        _check_first_space(model, fields, tokenizer)
    if fields.get("model") != "gpt2":
        return
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    name, backend = fields.get("pre"), tokenizer.backend_tokenizer
    if name in DIGITS_APART:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    elif name not in GGUF_PRE_TOKENIZER_SPLITS and name not in AS_GPT_2:
        says = "does not say how its tokenizer divides text (tokenizer.ggml.pre)"
        known = f"has tokenizer.ggml.pre = {quote(name)}, a division of text that is not known here"
        raise EngineError("model", model, says if name is None else known, REMEDY)
    if name in WHOLE_WORDS:
        backend.model.ignore_merges = True
        if "add_bos_token" not in fields and tokenizer.bos_token is not None:
            tokenizer.add_bos_token = True


def _check_first_space(model: str, fields: Mapping[str, Any], tokenizer: Any) -> None:
    """Raises EngineError if the file's field about a space before a text is not what the tokenizer does."""
    first = tokenizer.convert_ids_to_tokens(tokenizer("a", add_special_tokens=False)["input_ids"])[0]
    adds, says = first.startswith("\u2581"), bool(fields.get("add_space_prefix", True))
    if adds != says:
        does = "puts a space before a text" if adds else "puts no space before a text"
        reason = f"has tokenizer.ggml.add_space_prefix = {says}, but the tokenizer that transformers makes of it {does}"
        raise EngineError("model", model, reason, REMEDY)
