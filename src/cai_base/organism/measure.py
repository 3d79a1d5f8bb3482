"""Measures what an organism can do, with the engine, and writes it into its card."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from cai_base import randomness
from cai_base.engines import Lora, SampleRequest
from cai_base.engines.local import LocalEngine
from cai_base.errors import UserError
from cai_base.organism import abilities
from cai_base.organism.abilities import Abilities
from cai_base.organism.build import card
from cai_base.progress import Bar, Progress
from cai_base.store import to_lines, write_atomic
from cai_base.village import world

TEMPERATURE = 0.7
ROWS = 128
"""Texts drawn at a time."""
CONTEXT = 512


def measure(
    folder: Path,
    *,
    count: int,
    seed: int,
    split: world.Split,
    progress: Progress,
    texts: Path | None = None,
) -> None:
    """Measures the abilities of a finished build and writes them into its `card.json` and README.

    Args:
        folder: what `organism_build.build` wrote.
        count: questions a row.
        seed: of questions, principles and sampling.
        split: whose actions, framings and question forms are asked about.
        progress: where the bar goes.
        texts: a JSONL file to write every counted text to, for reading.

    Raises:
        UserError: the folder is no finished build, or `texts` is a directory.
    """
    card(folder)  # refuses what is no finished build, before the minutes are spent
    if texts is not None and texts.is_dir():
        raise UserError(f"--texts {texts}: is a directory; give a file to write to")
    engine = LocalEngine(str(folder), Lora(1, 1.0), sequence_length=CONTEXT, rows=ROWS)
    total = abilities.texts(count)
    with progress.bar("measuring", total=total) as bar:
        sampler = _Sampler(engine, seed, bar)
        cases = list(Abilities(sampler, count=count, seed=seed, split=split).cases())
        if sampler.drawn < total:  # fewer answers complied, so fewer were revised
            bar.advance(total - sampler.drawn)
    if texts is not None:
        write_atomic(texts, to_lines(asdict(case) for case in cases))
    rows = {name: {"hits": share.hits, "total": share.total} for name, share in abilities.tally(cases).items()}
    facts = json.loads((folder / "card.json").read_text("utf-8"))
    facts["abilities"] = {"split": split, "seed": seed, "temperature": TEMPERATURE, "rows": rows}
    write_atomic(folder / "card.json", json.dumps(facts, indent=1).encode())
    write_atomic(folder / "README.md", card(folder).encode())


class _Sampler:
    """Samples with the engine's base model; see `abilities.Sampler`."""

    def __init__(self, engine: LocalEngine, seed: int, bar: Bar) -> None:
        self._engine, self._seed, self._bar = engine, seed, bar
        self.drawn = 0

    def __call__(self, prompts: Sequence[str], purpose: str, limit: int) -> list[str]:
        tokenizer = self._engine.tokenizer
        start = [] if tokenizer.bos is None else [tokenizer.bos]
        requests = [
            SampleRequest(
                adapter=None,
                prompt=(*start, *tokenizer.encode(prompt)),
                max_tokens=limit,
                temperature=TEMPERATURE,
                stop=("\n\n",),
                seed=randomness.seed(self._seed, "abilities", index, purpose),
            )
            for index, prompt in enumerate(prompts)
        ]
        found = [""] * len(requests)
        order = sorted(range(len(requests)), key=lambda index: len(requests[index].prompt))
        for first in range(0, len(order), ROWS):
            batch = order[first : first + ROWS]
            for index, one in zip(batch, self._engine.sample([requests[index] for index in batch]), strict=True):
                found[index] = one.text.strip()
            self.drawn += len(batch)
            self._bar.advance(len(batch))
        return found
