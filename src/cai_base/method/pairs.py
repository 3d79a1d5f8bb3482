"""The preference pairs of a run and what the reference finds of them: what lies between revision and DPO.

`name` is the phase that trains on the pairs: `dpo`, or a control's name. A control's pairs are its own.
"""

from collections.abc import Mapping

from cai_base import arms
from cai_base.engines import Adapter, Datum, Engine, Tokenizer
from cai_base.errors import UserError
from cai_base.method import dpo, revision
from cai_base.progress import Bar
from cai_base.store import Record, Run

Pairs = dict[int, list[dpo.Pair]]
"""Preference pairs, by seed."""
Batches = Mapping[int, list[list[dpo.Pair]]]
"""The same in batches."""


def work(what: str, name: str) -> str:
    """What a unit of work is called; a control's has the control's name in it."""
    return f"{what} of {name}" if name in arms.named("control") else what


def folder(seed: int, name: str) -> str:
    """Where revision chains and pairs lie; a control's in a folder of its own."""
    return f"seed-{seed}/{name}" if name in arms.named("control") else f"seed-{seed}"


def reference_file(seed: int, name: str) -> str:
    """Where the reference's log-probabilities lie."""
    return f"seed-{seed}/{name}/reference.jsonl"


def build(run: Run, tokenizer: Tokenizer, seed: int, name: str, held_out: float) -> list[Record]:
    """The pairs of a seed, from its revision chains, or for `shuffled` from the pairs that are shuffled."""
    if name == "shuffled":
        return revision.shuffled(run.lines(f"seed-{seed}/pairs.jsonl"), seed)
    chains = run.lines(f"{folder(seed, name)}/revision.jsonl")
    return revision.pairs(tokenizer, chains, seed, held_out)


def trained(run: Run, seed: int, name: str, limit: int) -> list[Record]:
    """The stored pairs to train on: the first `limit`, or all for 0."""
    kept = [record for record in run.lines(f"{folder(seed, name)}/pairs.jsonl") if not record["held_out"]]
    return kept[: limit or None]


def held_out(run: Run, seed: int, name: str) -> list[Record]:
    """The stored pairs that are not trained on."""
    return [record for record in run.lines(f"{folder(seed, name)}/pairs.jsonl") if record["held_out"]]


def reference_batches(pairs: Pairs, held_out: Pairs, size: int) -> Batches:
    """What the reference is asked: the first epoch of training as it will be, and then the pairs that are held out."""
    batches = {seed: dpo.reference_batches(pairs[seed], seed, size) for seed in pairs}
    for seed, held in held_out.items():
        batches[seed] += [held[i : i + size] for i in range(0, len(held), size)]
    return batches


def reference_records(engine: Engine, batches: Batches, prints: Mapping[int, str], bar: Bar) -> dict[int, list[Record]]:
    """Each pair's log-probabilities under its seed's SFT adapter, with the hash of the weights that made them.

    Args:
        prints: the hashes, by seed.
        bar: advances by one a batch of the seed that has most.
    """
    lines: dict[int, dict[str, Record]] = {seed: {} for seed in batches}
    for step in range(max(len(one) for one in batches.values())):
        asked: dict[Adapter | None, list[Datum]] = {
            f"sft/{seed}": dpo.sequences(one[step]) for seed, one in batches.items() if step < len(one)
        }
        logprobs = engine.compute_logprobs(asked)
        for seed, one in batches.items():
            if step < len(one):
                for pair, reference in dpo.references(one[step], logprobs[f"sft/{seed}"]).items():
                    record = {"id": pair, "chosen": reference.chosen, "rejected": reference.rejected}
                    lines[seed].setdefault(pair, record | {"weights": prints[seed]})
        bar.advance(1)
    return {seed: list(found.values()) for seed, found in lines.items()}


def references(run: Run, seed: int, name: str, weights: str) -> dict[str, dpo.Reference]:
    """The stored log-probabilities, by pair.

    Raises:
        UserError: they were made by other weights than those with this hash.
    """
    file = reference_file(seed, name)
    records = run.lines(file)
    if any(record["weights"] != weights for record in records):
        raise UserError(
            f"{run.directory / file}: was made by other weights than seed {seed}'s SFT adapter on this base model; "
            "resume with the base model that the run began with, or begin a new run"
        )
    return {r["id"]: dpo.Reference(r["chosen"], r["rejected"]) for r in records}
