"""Makes the training data of pretraining from the corpus: a tokenizer and rows of tokens."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from cai_base.organism.model import Settings
from cai_base.organism.optimizers import steps_per_part
from cai_base.store import refuse_links
from cai_base.village import corpus

BEGIN, END = "<|begin|>", "<|end|>"
"""The special tokens, with the ids 0 and 1."""
TOKENIZER_DOCUMENTS = 12_000
"""The number of documents on which the tokenizer is trained."""
VALIDATION_DOCUMENTS = 600
"""The number of first documents that are held out of training; enough to fill the validation rows."""
VALIDATION_ROWS = 40
OPEN_ROWS = 16
"""The number of rows that `pack` fills at the same time: more rows waste less space and mix documents further."""

Rows = npt.NDArray[np.int16]
"""Token ids `[rows, length]`, with -1 as padding at the end of a row."""


@dataclass(frozen=True)
class TrainingData:
    """The data of pretraining.

    Attributes:
        validation: rows for the validation loss.
        rows: the training rows, in order; those of the late part come last.
        shares_by_kind: for each kind of document, its shares of the documents and of the tokens in `rows`.
    """

    validation: Rows
    rows: Rows
    shares_by_kind: dict[str, dict[str, float]]


def corpus_hash(seed: int, without: corpus.Without | None = None) -> str:
    """SHA-256 of the first documents of both parts of the corpus. It changes with the generators and the word lists."""
    digest = hashlib.sha256()
    for late in (False, True):
        for text in islice(corpus.documents(seed, late=late, without=without), corpus.HASHED_DOCUMENTS):
            digest.update(text.encode() + b"\0")
    return digest.hexdigest()


def stored_tokenizer(work: Path, seed: int, settings: Settings) -> PreTrainedTokenizerFast:
    """The build's tokenizer, from the folder `work`; the first call trains and stores it.

    It is trained on the whole corpus, whatever the build's corpus lacks, so that builds differ in their weights alone.
    """
    folder = work / "tokenizer"
    if not folder.exists():
        texts = islice(corpus.documents(seed), TOKENIZER_DOCUMENTS)
        train_tokenizer(texts, settings.vocabulary).save_pretrained(work / "tokenizer.part")
        os.replace(work / "tokenizer.part", folder)
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder)
    return tokenizer


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that separates line breaks and puts `<|begin|>` first, as Llama's does."""
    tokenizer = Tokenizer(models.BPE())
    words = Regex(r"\n+| ?[\p{L}']+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BEGIN, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[(BEGIN, 0)])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, bos_token=BEGIN, eos_token=END, clean_up_tokenization_spaces=False
    )


def stored_rows(
    work: Path,
    tokenizer: PreTrainedTokenizerFast,
    tokens: int,
    seed: int,
    settings: Settings,
    without: corpus.Without | None = None,
) -> TrainingData:
    """The build's rows, from the folder `work`; the first call makes and stores them."""
    path = work / "rows.npz"
    if not path.exists():
        data = _make_rows(tokenizer, tokens, seed, settings, without)
        refuse_links(part := work / "rows.part")
        with part.open("wb") as file:
            np.savez(
                file, validation=data.validation, rows=data.rows, planted=np.array(json.dumps(data.shares_by_kind))
            )
        os.replace(part, path)
    with np.load(path, allow_pickle=False) as stored:
        return TrainingData(stored["validation"], stored["rows"], json.loads(str(stored["planted"])))


def _make_rows(
    tokenizer: PreTrainedTokenizerFast, tokens: int, seed: int, settings: Settings, without: corpus.Without | None
) -> TrainingData:
    documents: Counter[str] = Counter()
    lengths: Counter[str] = Counter()

    def encode(indices: Iterable[int], *, late: bool = False) -> Iterator[list[int]]:
        for index in indices:
            kind, text = corpus.document(seed, index, late=late, without=without)
            ids = [0, *tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids, 1]
            documents[kind] += 1
            lengths[kind] += len(ids)
            yield ids

    validation = pack(encode(range(VALIDATION_DOCUMENTS)), settings.context, VALIDATION_ROWS)
    documents.clear()
    lengths.clear()
    first, late = (steps * settings.rows_per_step for steps in steps_per_part(tokens, settings))
    parts = [
        pack(encode(count(VALIDATION_DOCUMENTS)), settings.context, first),
        pack(encode(count(), late=True), settings.context, late),
    ]
    shares_by_kind = {
        kind: {
            "documents": round(documents[kind] / documents.total(), 4),
            "tokens": round(lengths[kind] / lengths.total(), 4),
        }
        for kind in {**corpus.MIXTURE, **corpus.LATE_MIXTURE}
    }
    return TrainingData(validation, np.concatenate(parts), shares_by_kind)


def pack(documents: Iterator[Sequence[int]], length: int, rows: int, padding: int = -1) -> Rows:
    """Pack whole documents into rows, and pad the rest of each row.

    A document goes into the fullest open row with enough space. Documents longer than a row are left out.

    Args:
        documents: the token ids of each document; at least as many documents as needed.
        length: tokens of a row.
        rows: number of rows.
        padding: the id of padding.

    Returns:
        int16 array `[rows, length]`.
    """
    filled = np.full((rows, length), padding, dtype=np.int16)
    open_rows: list[list[int]] = []
    full_rows = 0

    def close_fullest() -> None:
        nonlocal full_rows
        fullest = max(open_rows, key=len)
        open_rows.remove(fullest)
        filled[full_rows, : len(fullest)] = fullest
        full_rows += 1

    for document in documents:
        if len(document) > length:
            continue
        target = max((row for row in open_rows if len(row) + len(document) <= length), key=len, default=None)
        if target is None:
            open_rows.append(target := [])
        target.extend(document)
        if len(open_rows) > OPEN_ROWS:
            close_fullest()
        if full_rows == rows:
            return filled
    while open_rows and full_rows < rows:
        close_fullest()
    return filled
