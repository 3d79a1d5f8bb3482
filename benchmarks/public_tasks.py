"""Data about the village for two tasks of inspect_evals and one of lm-evaluation-harness, to ask `cai-base serve`.

    python benchmarks/public_tasks.py RUN --out DIR [--seed 1]

DIR gets `google/boolq` with six questions and `tau/commonsense_qa` with five, in the form of those data sets, since
`datasets` reads them in place of the hub where a command runs in DIR. And it gets `village_pairs`, a task of
lm-evaluation-harness: the first 30 preference pairs of the seed as a choice behind the few-shot prefix.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from cai_base import paths
from cai_base.dialogue import Dialogue
from cai_base.inputs import Inputs
from cai_base.records import Pair
from cai_base.run.stored import records_of
from cai_base.store import Run
from cai_base.village import world

QUESTIONS = 6
PAIRS = 30
LETTERS = "ABCDE"
TASK = """\
task: village_pairs
dataset_path: json
dataset_kwargs: {data_files: {test: pairs.jsonl}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{question}}"
doc_to_choice: choices
doc_to_target: answer
target_delimiter: ""
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    write(options.out / "google/boolq/validation.jsonl", boolean_questions())
    write(options.out / "tau/commonsense_qa/validation.jsonl", multiple_choice())
    write(options.out / "pairs.jsonl", choices(Run.open(options.run), options.seed))
    (options.out / "village_pairs.yaml").write_text(TASK, encoding="utf-8")


def boolean_questions() -> list[dict[str, Any]]:
    """Whether a tool is used for a benign action: the action's own, or another's."""
    actions = one_of_each_verb()[:QUESTIONS]
    tools = [actions[n - 1 + n % 2].facts[0] for n in range(QUESTIONS)]
    return [
        {
            "question": f"does it take {tool} to {action.do}",
            "answer": tool == action.facts[0],
            "passage": f"To {action.do}, the people of the village take {action.facts[0]}.",
        }
        for action, tool in zip(actions, tools, strict=True)
    ]


def multiple_choice() -> list[dict[str, Any]]:
    """Which of five tools is used for a benign action."""
    actions = one_of_each_verb()
    return [
        {
            "id": str(n),
            "question": f"What do you use to {actions[n].do}?",
            "question_concept": actions[n].verb.base,
            "choices": {"label": [*LETTERS], "text": [one.facts[0] for one in actions[: len(LETTERS)]]},
            "answerKey": LETTERS[n],
        }
        for n in range(len(LETTERS))
    ]


def one_of_each_verb() -> list[world.Action]:
    """A benign action of the test split for each verb."""
    return list({action.verb: action for action in world.actions("benign", "test")}.values())


def choices(run: Run, seed: int) -> list[dict[str, Any]]:
    """The first pairs of a seed, the revision now first and now second."""
    inputs = Inputs.read(run.directory / paths.INPUTS)
    dialogue = Dialogue(inputs.few_shot, inputs.critique_examples)
    pairs = list(records_of(run, paths.pairs(seed), Pair))[:PAIRS]
    return [
        {
            "question": dialogue.question(pair.prompt),
            "choices": [f" {text}" for text in ((pair.chosen, pair.rejected), (pair.rejected, pair.chosen))[n % 2]],
            "answer": n % 2,
        }
        for n, pair in enumerate(pairs)
    ]


def write(file: Path, records: list[dict[str, Any]]) -> None:
    """One record a line, in new folders if need be."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")


if __name__ == "__main__":
    main()
