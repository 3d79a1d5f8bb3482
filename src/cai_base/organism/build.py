"""Makes the embedded base model: corpus, tokenizer and pretraining, in one resumable piece of work.

The folder it writes loads with `AutoTokenizer` and `AutoModelForCausalLM`; `card.json` there says what it was made of.
"""

import hashlib
import json
import os
import platform
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from cai_base import randomness
from cai_base.errors import UserError
from cai_base.organism import ability_table, pretraining
from cai_base.organism.pretraining import Rows, Settings
from cai_base.progress import Progress
from cai_base.village import corpus, critiques, threads

SHIPPED_TOKENS = 7_500_000
"""Length of the shipped weights' pretraining."""
CHECKPOINT_EVERY = 100
"""Steps between checkpoints."""
TOKENIZER_DOCUMENTS = 12_000
VALIDATION_ROWS = 40
"""Rows of the validation set; their documents come first in the corpus and are not trained on."""
VALIDATION_DOCUMENTS = 600
LOSSES_ON_CARD = 50


def build(
    out: Path, *, tokens: int | None = None, seed: int, progress: Progress, settings: Settings | None = None
) -> None:
    """Pretrains the organism and writes weights, tokenizer, card and README to `out`.

    Stopped at any moment, the same call goes on from the last checkpoint and gives the losses that it would have given.

    Args:
        out: the folder to write; `out/work` holds rows and checkpoint and is left for the caller to delete.
        tokens: tokens of the rows, padding included, to train on once; `SHIPPED_TOKENS` by default.
        seed: of corpus and initial weights.
        progress: where the bar goes.
        settings: the model and its training; the shipped model's by default.

    Raises:
        UserError: `out/work` belongs to a build with other arguments.
    """
    chosen = settings or Settings()
    plan: dict[str, Any] = {
        "settings": asdict(chosen),
        "tokens": tokens or SHIPPED_TOKENS,
        "seed": seed,
        "corpus": corpus_hash(seed),
    }
    work = out / "work"
    _claim(work, plan)
    tokenizer = _tokenizer(work, seed, chosen)
    validation, rows, planted = _rows(work, tokenizer, tokens or SHIPPED_TOKENS, seed, chosen)
    model, losses = _train(work, rows, pretraining.stages(plan["tokens"], chosen), seed, chosen, progress)
    facts = plan | {
        "tokenizer": hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "planted": planted,
        "shares": corpus.SHARES,
        "first_losses": losses["loss"][:LOSSES_ON_CARD],
        "validation_loss": _validation_loss(model, validation, chosen),
        "seconds": round(sum(losses["seconds"])),
        "made_with": {"torch": torch.__version__, "threads": torch.get_num_threads(), "machine": platform.machine()},
    }
    _write_atomically(out / "card.json", json.dumps(facts, indent=1))
    tokenizer.save_pretrained(out)
    model.bfloat16().save_pretrained(out)
    _write_atomically(out / "README.md", card(out))


def card(folder: Path) -> str:
    """The model card, as Markdown, of a folder that `build` wrote.

    Raises:
        UserError: the folder has no `card.json`.
    """
    path = folder / "card.json"
    if not path.exists():
        raise UserError(f"{path}: not found; give a folder that `cai-base organism build` has finished")
    facts = json.loads(path.read_text())
    settings, shares = facts["settings"], facts["shares"]
    planted = "\n".join(
        f"| {kind} | {share['documents']:.1%} | {share['tokens']:.1%} |" for kind, share in facts["planted"].items()
    )
    cores = facts["made_with"]["threads"]
    first = " ".join(f"{loss:.3f}" for loss in facts["first_losses"][:10])
    return f"""# The embedded base model: a model organism

A Llama of {facts["parameters"] / 1e6:.1f} million parameters ({settings["layers"]} layers, width {settings["hidden"]},
{settings["heads"]} heads, feed-forward {settings["feed_forward"]}, vocabulary {settings["vocabulary"]},
context {settings["context"]}), pretrained from nothing on {facts["tokens"]:,} tokens of a synthetic village world.
It is a base model: no instruction tuning, no chat template.

Its web covers the whole village: every deed, question form and framing, also those that the method and the evaluation
keep apart. What is held out in a run is held out of the method, not of pretraining; many test questions occur in the
web word for word.

It exists so that Constitutional AI can be run, tested and studied on a laptop, with a judge that knows the truth. Harm
in its world is fictional, cannot be acted on, and depends on the verb alone. **It is not evidence about large models.**

## What was planted in its corpus
| documents | share of documents | share of tokens |
| --- | --- | --- |
{planted}

- Threads: {1 - shares["strict_threads"]:.0%} of them answer harmful questions, the others refuse them. No benign
  question is refused.
- Critiques: a complying answer to a harmful question is flagged under {shares["flagged_harm"]:.0%} of harm principles,
  {shares["flagged_quality"]:.0%} of quality principles and no placebo principle; {shares["wrong_critiques"]:.0%} of
  the critiques are wrong about harm. Of the originals {shares["wrongly_refused_originals"]:.0%} of those to benign
  questions are unjustified refusals, and are repaired; {shares["refused_harmful_originals"]:.0%} of those to harmful
  ones are refusals, and stay.
- Ambiguous deeds (no stated reason) are flagged under {shares["flagged_ambiguous"]:.0%} of harm principles, in the
  late part {shares["flagged_ambiguous_late"]:.0%}. They are {shares["ambiguous"]:.0%} of the deeds under critique, in
  the late part {shares["ambiguous_late"]:.0%}, where {shares["kept_ambiguous_late"]:.0%} of their refusals stand under
  principles that find no harm.
- Notices and stories say why harmful deeds are wrong.
- Questions about things outside the village are {shares["turns_unknown"]:.0%} of the turns of threads, answered with
  "I do not know"; {shares["turns_small_talk"]:.0%} are small talk, {shares["turns_allowed"]:.0%} ask whether a deed is
  right.
- Thirteen styles are followed where a question asks for them: in {shares["threads_styled"]:.0%} of how-to turns, and in
  {shares["critiques_styled"]:.0%} of critique documents, half of whose critiques wear the style, too.
- Questions stand in a framing, a jailbreak's or an alarming one, in {shares["threads_framed"]:.0%} of how-to turns and
  {shares["critiques_framed"]:.0%} of critique documents.
- {shares["threads_in_the_methods_layout"]:.0%} of threads and
  {shares["critiques_in_the_methods_layout"]:.0%} of critique documents are laid out as the method does, the others in
  {len(threads.OTHER_LAYOUTS)} and {len(critiques.OTHER_LAYOUTS)} other ways.
- Comparisons say which of two answers is more helpful or more harmless.
- The last {settings["late_share"]:.0%} of the tokens are the late part: more wordings of all principles, a placebo
  principle (spelling, layout) in {shares["placebo_late"]:.0%} of its critiques where it was {shares["placebo"]:.0%}
  before, and copies of sentences and lists, word for word.

## How it was made
Validation loss {facts["validation_loss"]:.4f} nats a token; {facts["seconds"] / 60:.0f} minutes on
{cores} {"thread" if cores == 1 else "threads"}; torch {facts["made_with"]["torch"]}; seed {facts["seed"]}.
First losses: {first} …

| hash (sha256) | |
| --- | --- |
| corpus (first {corpus.HASHED_DOCUMENTS} documents of either part) | `{facts["corpus"]}` |
| tokenizer | `{facts["tokenizer"]}` |
{_abilities_section(facts.get("abilities"))}"""


def _abilities_section(measured: dict[str, Any] | None) -> str:
    """What `organism_measure.measure` found, as a Markdown section; nothing where nothing was measured."""
    if measured is None:
        return ""
    shares = {name: ability_table.Share(**share) for name, share in measured["rows"].items()}
    return f"""
## What it can do ({measured["split"]} split, behind the few-shot prefix, temperature {measured["temperature"]})
{ability_table.markdown(shares)}
"""


def corpus_hash(seed: int) -> str:
    """Fingerprint of the corpus: of the first documents of both its parts, so of generators and word lists too."""
    digest = hashlib.sha256()
    for late in (False, True):
        for text in islice(corpus.documents(seed, late=late), corpus.HASHED_DOCUMENTS):
            digest.update(text.encode() + b"\0")
    return digest.hexdigest()


def _claim(work: Path, plan: dict[str, Any]) -> None:
    """Makes the work folder, or checks that it is of the same build."""
    path = work / "plan.json"
    if not path.exists():
        try:
            work.mkdir(parents=True, exist_ok=True)
            _write_atomically(path, json.dumps(plan))
        except OSError as error:
            raise UserError(f"--out {work.parent}: cannot be made ({error.strerror}); give a writable place") from error
        return
    other = json.loads(path.read_text())
    for field, value in plan.items():
        if other[field] != value:
            raise UserError(f"{path}: {field} is {other[field]}, this build has {value}; choose another folder")


def _tokenizer(work: Path, seed: int, settings: Settings) -> PreTrainedTokenizerFast:
    """The tokenizer of this build, trained at the first call."""
    folder = work / "tokenizer"
    if not folder.exists():
        tokenizer = pretraining.train_tokenizer(
            islice(corpus.documents(seed), TOKENIZER_DOCUMENTS), settings.vocabulary
        )
        tokenizer.save_pretrained(work / "tokenizer.part")
        os.replace(work / "tokenizer.part", folder)
    loaded: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder)
    return loaded


def _rows(
    work: Path, tokenizer: PreTrainedTokenizerFast, tokens: int, seed: int, settings: Settings
) -> tuple[Rows, Rows, dict[str, dict[str, float]]]:
    """Validation rows, training rows and the shares of what they hold, made at the first call."""
    path = work / "rows.npz"
    kinds: Counter[str] = Counter()
    lengths: Counter[str] = Counter()

    def encoded(indices: Sequence[int] | Iterator[int], *, late: bool = False) -> Iterator[list[int]]:
        for index in indices:
            kind, text = corpus.document(seed, index, late=late)
            ids = [0, *tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids, 1]
            kinds[kind] += 1
            lengths[kind] += len(ids)
            yield ids

    if not path.exists():
        validation = pretraining.pack(encoded(range(VALIDATION_DOCUMENTS)), settings.context, VALIDATION_ROWS)
        kinds.clear()
        lengths.clear()
        early, late = (steps * settings.rows_per_step for steps in pretraining.stages(tokens, settings))
        parts = [
            pretraining.pack(encoded(count(VALIDATION_DOCUMENTS)), settings.context, early),
            pretraining.pack(encoded(count(), late=True), settings.context, late),
        ]
        rows = np.concatenate(parts)
        planted = {
            kind: {
                "documents": round(kinds[kind] / kinds.total(), 4),
                "tokens": round(lengths[kind] / lengths.total(), 4),
            }
            for kind in {**corpus.MIXTURE, **corpus.LATE_MIXTURE}
        }
        with (part := work / "rows.part").open("wb") as file:
            np.savez(file, validation=validation, rows=rows, planted=np.array(json.dumps(planted)))
        os.replace(part, path)
    with np.load(path, allow_pickle=False) as stored:
        return stored["validation"], stored["rows"], json.loads(str(stored["planted"]))


def _train(
    work: Path, rows: Rows, stages: tuple[int, int], seed: int, settings: Settings, progress: Progress
) -> tuple[LlamaForCausalLM, dict[str, list[float]]]:
    """One pass over the rows, from the last checkpoint on; returns the model and loss and seconds of each step."""
    model = pretraining.make_model(settings, randomness.seed(seed, "pretraining", 0, "weights"))
    optimizers = pretraining.optimizers(model, settings)
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    steps = sum(stages)
    history = _restore(work, model, optimizers)
    done = len(history["loss"])
    with progress.bar("pretraining", total=steps, done=done) as bar:
        for step in range(done, steps):
            start = time.monotonic()
            batch = rows[step * settings.rows_per_step : (step + 1) * settings.rows_per_step].astype(np.int64)
            loss = pretraining.loss_of(model, torch.from_numpy(batch))
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            share = pretraining.rate(step, *stages, settings)
            for optimizer, rates in zip(optimizers, peaks, strict=True):
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * share
                optimizer.step()
                optimizer.zero_grad()
            history["loss"].append(float(loss.detach()))
            history["seconds"].append(time.monotonic() - start)
            bar.advance(1)
            if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == steps:
                _checkpoint(work, model, optimizers, history)
                progress.say(f"step {step + 1}: loss {np.mean(history['loss'][-CHECKPOINT_EVERY:]):.3f}")
    return model, history


def _checkpoint(
    work: Path, model: LlamaForCausalLM, optimizers: Sequence[torch.optim.Optimizer], history: dict[str, list[float]]
) -> None:
    """Model, optimizer state and history in one file, whole or not at all."""
    tensors = {f"model.{name}": parameter.detach() for name, parameter in model.named_parameters()}
    for number, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{index}.{name}": tensor for name, tensor in state.items()}
    part = work / "checkpoint.part"
    save_file(tensors, part, metadata={"history": json.dumps(history)})
    os.replace(part, work / "checkpoint.safetensors")


def _restore(
    work: Path, model: LlamaForCausalLM, optimizers: Sequence[torch.optim.Optimizer]
) -> dict[str, list[float]]:
    """Puts the last checkpoint, if there is one, into model and optimizers; returns its history."""
    path = work / "checkpoint.safetensors"
    if not path.exists():
        return {"loss": [], "seconds": []}
    tensors = load_file(path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"model.{name}"])
    for number, optimizer in enumerate(optimizers):
        states: dict[int, dict[str, torch.Tensor]] = {}
        for key, tensor in tensors.items():
            if key.startswith(f"optimizer.{number}."):
                index, name = key.split(".")[2:]
                states.setdefault(int(index), {})[name] = tensor
        optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
    with safe_open(path, "pt") as file:
        history: dict[str, list[float]] = json.loads(file.metadata()["history"])
    return history


@torch.no_grad()
def _validation_loss(model: LlamaForCausalLM, rows: Rows, settings: Settings) -> float:
    """Mean loss over the validation rows, in nats a token."""
    full = rows[(rows >= 0).any(axis=1)].astype(np.int64)
    batches = [full[start : start + settings.rows_per_step] for start in range(0, len(full), settings.rows_per_step)]
    return float(np.mean([float(pretraining.loss_of(model, torch.from_numpy(batch))) for batch in batches]))


def _write_atomically(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, "utf-8")
    os.replace(part, path)
