"""The relative paths of all files in a run's directory, each defined once, with forward slashes.

`phase` is the folder of a training phase, such as `dpo`. `owner` is the folder of the arm to which chains or pairs
belong; None for the run's own. `config.json`, `manifest.json` and the folder of trackers are named in `store`.
"""

import re
from typing import NamedTuple

_NUMBER, _NAME = "[0-9]+", "([^/]+)"
"""Patterns of a number and of a name in a path."""

Number = int | str
"""A seed or a step; in text about paths in general, the letter that stands for it."""

INPUTS = "inputs.json"
WARNINGS = "warnings.json"
PREFLIGHT = "preflight.json"
RESULTS = "results.json"
USAGE = "usage.json"
JUDGE_LABELS = "judge-labels.jsonl"
README = "README.md"
SPENDING = "spending.json"
LIVE = "live.json"
STYLE = "style.json"
PAIRWISE = "pairwise.jsonl"
REPORT_HTML, REPORT_MARKDOWN = "report.html", "report.md"
FIGURES, SUITES, INSPECT = "figures", "suites", "inspect"


def seed_folder(seed: Number) -> str:
    """The folder of everything that one seed trained and sampled."""
    return f"seed-{seed}"


def chains(seed: Number, owner: str | None = None) -> str:
    """The revision chains of a seed."""
    return f"{_owned(seed, owner)}/revision.jsonl"


def responses(seed: Number, owner: str | None) -> str:
    """The pairs of responses that an arm compares, for one seed."""
    return f"{_owned(seed, owner)}/responses.jsonl"


def pairs(seed: Number, owner: str | None = None) -> str:
    """The preference pairs of a seed."""
    return f"{_owned(seed, owner)}/pairs.jsonl"


def reference(seed: Number, phase: str) -> str:
    """The log-probabilities of a phase's training pairs under the reference."""
    return f"{seed_folder(seed)}/{phase}/reference.jsonl"


def metrics(seed: Number, phase: str) -> str:
    """The metrics of a seed's training steps."""
    return f"{seed_folder(seed)}/{phase}/metrics.jsonl"


def state(seed: Number, phase: str, step: Number) -> str:
    """The folder of a seed's training state after a step."""
    return f"{seed_folder(seed)}/{phase}/state-{step}"


def adapter(seed: Number, phase: str) -> str:
    """The folder of a seed's exported adapter."""
    return f"{seed_folder(seed)}/{phase}/adapter"


def adapter_of(file: str) -> str | None:
    """The phase whose exported adapter a file belongs to; None for another file."""
    match = re.fullmatch(f"{adapter(_NUMBER, _NAME)}/[^/]+", file)
    return None if match is None else match[1]


def failures(phase: str) -> str:
    """The adapters that failed in a phase, with the reasons."""
    return f"{phase}-failed.jsonl"


def evaluation(seed: Number, arm: str, step: Number | None = None) -> str:
    """The folder of an arm's answers; `step` for an evaluation during training."""
    return f"{seed_folder(seed)}/evaluation/{arm}" + (f"/step-{step}" if step else "")


def evaluated_step(name: str) -> int | None:
    """The step of an evaluation during training, from its folder's name; None for another name."""
    digits = name.removeprefix("step-")
    return int(digits) if digits != name and digits.isdecimal() else None


class AnswersOf(NamedTuple):
    """Whose answers a file holds."""

    arm: str
    task: str


def answers_of(file: str) -> AnswersOf | None:
    """Of a file of answers, at the end or during training, the arm and the task; None for another file."""
    match = re.fullmatch(f"{answers(_NUMBER, _NAME, _NAME)}|{answers(_NUMBER, _NAME, _NAME, _NUMBER)}", file)
    names = [] if match is None else [name for name in match.groups() if name is not None]
    return AnswersOf(*names) if names else None


class InSeed(NamedTuple):
    """Where a file lies in a seed's folder: the folder below that, None if there is none, and its name without
    ending."""

    folder: str | None
    name: str


def in_seed(file: str) -> InSeed | None:
    """Where a file lies in a seed's folder; None if it lies in none."""
    seed, *folders = file.split("/")
    if not folders or not re.fullmatch(seed_folder(_NUMBER), seed):
        return None
    return InSeed(folders[0] if len(folders) > 1 else None, folders[-1].removesuffix(".jsonl"))


def failures_of(file: str) -> str | None:
    """The phase whose failures a file holds; None for another file."""
    match = re.fullmatch(failures(_NAME), file)
    return None if match is None else match[1]


def answers(seed: Number, arm: str, task: str, step: Number | None = None) -> str:
    """An arm's answers to the prompts of one task."""
    return f"{evaluation(seed, arm, step)}/{task}.jsonl"


def styled_answers(seed: Number, arm: str) -> str:
    """An arm's answers in the thirteen styles."""
    return f"style/{arm}/{seed_folder(seed)}.jsonl"


def suite_answers(seed: Number, arm: str) -> str:
    """An arm's answers to a suite, in the suite's directory."""
    return f"{arm}/{seed_folder(seed)}.jsonl"


def replies(judge: str) -> str:
    """The replies of a judge, which is named by its flag."""
    return f"{judge}.jsonl"


def _owned(seed: Number, owner: str | None) -> str:
    return seed_folder(seed) if owner is None else f"{seed_folder(seed)}/{owner}"
