"""Measures the abilities of a finished base model with the local engine, and writes them to its card."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from cai_base import randomness
from cai_base.engines import Lora, SampleRequest
from cai_base.engines.local import LocalEngine
from cai_base.organism.abilities import Abilities, most_texts, tally
from cai_base.organism.cards import CARD, base_card, read_base_card
from cai_base.progress import Bar, Progress
from cai_base.store import check_new_file, to_lines, write_atomic
from cai_base.village import world

TEMPERATURE = 0.7
"""The sampling temperature, as in the evaluation of a run."""
ROWS = 128
"""The number of texts sampled in one call of the engine."""
CONTEXT = 512
"""The embedded model's context, in tokens."""


def measure(
    folder: Path,
    *,
    count: int,
    seed: int,
    split: world.Split,
    progress: Progress,
    texts: Path | None = None,
) -> None:
    """Measure the abilities of the base model in `folder` and write them into its `card.json` and README.

    Args:
        folder: the folder of a finished `build.build`.
        count: questions for each row of the table.
        seed: the seed of questions, principles and sampling.
        split: the split of actions, framings and question forms.
        progress: shows the progress bar.
        texts: a JSONL file for every counted text, for reading.

    Raises:
        UserError: the folder has no card, or no file can be written at `texts`.
    """
    card = read_base_card(folder)
    if texts is not None:
        check_new_file(texts, "--texts")
    engine = LocalEngine(str(folder), Lora(1, 1.0), sequence_length=CONTEXT, rows=ROWS)
    total = most_texts(count)
    with progress.bar("measuring", total=total, unit="texts") as bar:
        sampler = _Sampler(engine, seed, bar)
        cases = list(Abilities(sampler, count=count, seed=seed, split=split).cases())
        if sampler.texts < total:  # fewer answers complied, so fewer were revised
            bar.advance(total - sampler.texts)
    if texts is not None:
        write_atomic(texts, to_lines(asdict(case) for case in cases))
    card["abilities"] = {
        "split": split,
        "seed": seed,
        "temperature": TEMPERATURE,
        "rows": {name: {"hits": share.hits, "total": share.total} for name, share in tally(cases).items()},
    }
    write_atomic(folder / CARD, json.dumps(card, indent=1).encode())
    write_atomic(folder / "README.md", base_card(folder).encode())


class _Sampler:
    """Samples with the engine's base model; see `abilities.Sampler`. `texts` counts what was sampled."""

    def __init__(self, engine: LocalEngine, seed: int, bar: Bar) -> None:
        self._engine, self._seed, self._bar = engine, seed, bar
        self.texts = 0

    def __call__(self, prompts: Sequence[str], purpose: str, limit: int) -> list[str]:
        tokenizer = self._engine.tokenizer
        requests = [
            SampleRequest(
                adapter=None,
                prompt=(*tokenizer.bos, *tokenizer.encode(prompt)),
                max_tokens=limit,
                temperature=TEMPERATURE,
                stop=("\n\n",),
                seed=randomness.seed(self._seed, "abilities", index, purpose),
            )
            for index, prompt in enumerate(prompts)
        ]
        texts = [""] * len(requests)
        by_length = sorted(range(len(requests)), key=lambda index: len(requests[index].prompt))
        for first in range(0, len(by_length), ROWS):
            batch = by_length[first : first + ROWS]
            samples = self._engine.sample([requests[index] for index in batch])
            for index, sample in zip(batch, samples, strict=True):
                texts[index] = sample.text.strip()
            self.texts += len(batch)
            self._bar.advance(len(batch))
        return texts
