"""Writes the preference pairs of an arm as a folder for `datasets`, with TRL's columns and a data card."""

from pathlib import Path

from cai_base import paths
from cai_base.arms import Arm
from cai_base.dialogue import END, Dialogue, escape
from cai_base.errors import UserError
from cai_base.integrations.export.origin import (
    aid_sentences,
    lost_by_reason,
    others_sentence,
    pairs_origin,
    tags,
    training_sentences,
)
from cai_base.records import Pair, Results
from cai_base.report.page import escaped
from cai_base.run.stored import records_of
from cai_base.settings.schema import RunSettings
from cai_base.store import JsonObject, Run, to_lines
from cai_base.text import counted


def write_preferences(
    run: Run, settings: RunSettings, results: Results, arm: Arm, dialogue: Dialogue, out: Path
) -> int:
    """Write the pairs of all seeds; held-out pairs are the split `test`. Returns the number of pairs.

    Raises:
        UserError: the arm has no preference pairs.
    """
    if arm.pairs is None:
        if arm.on_run_pairs:
            raise UserError(
                f"--arm {arm.name}: is trained on the run's own pairs, which are those of cai; give --arm cai"
            )
        raise UserError(
            f"--arm {arm.name}: has no preference pairs; the arms trained on pairs are cai and its controls"
        )
    splits: dict[str, list[JsonObject]] = {"train": [], "test": []}
    laid_out: dict[str, list[JsonObject]] = {"train": [], "test": []}
    for seed in settings.seed_numbers:
        for pair in records_of(run, paths.pairs(seed, arm.owner), Pair):
            split = "test" if pair.held_out else "train"
            about = {"seed": seed, "id": pair.id, "kind": pair.kind, "principles": list(pair.principles)}
            texts = {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected}
            splits[split].append(texts | about)
            responses = {name: f" {escape(texts[name])}{END}" for name in ("chosen", "rejected")}
            laid_out[split].append({"prompt": dialogue.question(pair.prompt), **responses, **about})
    if not splits["train"]:
        raise UserError(f"--arm {arm.name}: no seed has a preference pair to train on; see `revision` in results.json")
    present = [split for split, records in splits.items() if records]
    for name, records in (("plain", splits), ("dialogue", laid_out)):
        (out / name).mkdir(parents=True)
        for split in present:
            (out / name / f"{split}.jsonl").write_bytes(to_lines(records[split]))
    (out / "README.md").write_text(_card(settings, results, arm, dialogue, splits, present), encoding="utf-8")
    return sum(map(len, splits.values()))


def _card(
    settings: RunSettings,
    results: Results,
    arm: Arm,
    dialogue: Dialogue,
    splits: dict[str, list[JsonObject]],
    present: list[str],
) -> str:
    configs = []
    for name in ("plain", "dialogue"):
        configs += [f"- config_name: {name}", *(["  default: true"] if name == "plain" else []), "  data_files:"]
        configs += [line for split in present for line in (f"  - split: {split}", f"    path: {name}/{split}.jsonl")]
    counts = ", ".join(f"{len(splits[split])} in the split {split}" for split in present)
    lost = ", ".join(f"{count} {reason}" for reason, count in lost_by_reason(results, arm).items())
    principles = {
        "comparisons": "; `principles` are those of its comparisons",
        "responses": "; `principles` is empty, since none was used",
    }.get(arm.source or "", "; `principles` are those drawn for its revision chain")
    revised = arm.source in (None, "chains")
    organism = (
        "\nThe base model is a model organism: a small model of a synthetic world in which harm is fictional. These "
        "texts are useless for training a model of English.\n"
        if results.model_organism
        else ""
    )
    return "\n".join(
        [
            "---",
            "language: en",
            "task_categories:",
            "- text-generation",
            f"tags: [preference, {', '.join([*tags(arm), 'trl', 'cai-base'])}]",
            "configs:",
            *configs,
            "---",
            f"# Preference pairs of {arm.label} on {escaped(results.model)}",
            "",
            f"{counted(sum(map(len, splits.values())), 'pair')} of {counted(len(results.seeds), 'seed')} ({counts}), "
            f"from a base model fine-tuned on a few written answers (SFT). {pairs_origin(results, settings, arm)} "
            f"{arm.label}: {arm.about}. {others_sentence(results, arm)}",
            organism,
            "## Columns",
            "`prompt`, `chosen` and `rejected` are TRL's; `seed` is the replicate, `id` and `kind` are the "
            f"prompt's{principles}.",
            "",
            "- `plain`: only the texts.",
            "- `dialogue`: the texts as in training: with the few-shot turns before the prompt, and the end "
            "of the response after it.",
            "",
            "```python",
            "from datasets import load_dataset",
            "",
            'pairs = load_dataset("FOLDER", "dialogue", split="train")  # FOLDER stands for this folder',
            "```",
            "",
            "## How the run made and used them",
            *(f"- {sentence}" for sentence in training_sentences(results, settings, arm)),
            "",
            "## Aids besides the principles",
            *(f"- {sentence}" for sentence in aid_sentences(results, settings, arm, len(dialogue.critique_examples))),
            "",
            "## Limits",
            *_prefilled(settings, arm),
            *([f"- Of the {'chains' if revised else 'pairs of answers'}, these gave no pair: {lost}."] if lost else []),
            *(
                ["- A revision is not always better than the original: see `revision` in the run's results.json."]
                if revised
                else []
            ),
            "- Prompts may ask for harmful things, and rejected answers may be harmful.",
            "- No person has checked or corrected these texts.",
            "",
        ]
    )


def _prefilled(settings: RunSettings, arm: Arm) -> list[str]:
    """What the refusal prefill did to the texts, as a line of the card; none without it."""
    if not settings.revision.refusal_prefill:
        return []
    where = "`rejected` texts begin" if arm.pairs == "revisions" else "texts in both columns begin"
    return [
        f"- Many {where} with a refusal because of the refusal prefill above, not because the model refused by itself."
    ]
