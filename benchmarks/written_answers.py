"""Written answers for SFT on the embedded model, more than the packaged six, by the generator of its world.

    python benchmarks/written_answers.py 60 > answers.jsonl
    cai-base run --sft.examples answers.jsonl …

Each is a friendly answer to a plain benign question of the train split, like the packaged ones, about an action of its
own that is not in the few-shot turns. Each seed of the run draws its six.
"""

import argparse
import json
import sys

from cai_base.village import answers, prompt_sets, questions, world
from cai_base.village.draw import Draw


def written(count: int) -> list[prompt_sets.PromptLine]:
    """So many questions with their answers, of different actions."""
    draw = Draw(prompt_sets.SEED, "benchmark", "written answers", count)
    shown = " ".join(turn["prompt"] for turn in prompt_sets.few_shot())
    actions = [one for one in world.actions("benign", "train") if one.do not in shown and one.doing not in shown]
    return [
        {
            "prompt": questions.plain_question(action, draw, "train"),
            "response": answers.answer(action, "friendly", draw),
        }
        for action in draw.sample(actions, count)
    ]


def main() -> int:
    """Print them as JSONL."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int)
    for line in written(parser.parse_args().count):
        print(json.dumps(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
