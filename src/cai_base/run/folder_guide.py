"""The README of a run's folder: what each file is, and how to go on."""

from cai_base import paths
from cai_base.settings.choices import Scope
from cai_base.settings.judges import JudgeName
from cai_base.store import CONFIG, MANIFEST

FILES = (
    (paths.RESULTS, "every figure, with intervals; equal runs have equal bytes. Written at the end"),
    (f"{paths.REPORT_HTML}, {paths.REPORT_MARKDOWN}", "the same as a page to look at, with curves, chains and answers"),
    (f"{paths.FIGURES}/", "the page's figures as SVG and PDF"),
    (CONFIG, "every setting, as it was used"),
    (paths.INPUTS, "prompts, constitution, examples and rubrics, whole, as they were used"),
    (paths.PREFLIGHT, "what the checks before the run found"),
    (paths.WARNINGS, "the warnings with which the run began"),
    (MANIFEST, "how far the run is, the hash of every file, versions, commit, device and date of each session"),
    (f"{paths.USAGE}, {paths.SPENDING}", "seconds, tokens and money"),
    ("seed-N/revision.jsonl", "the revision chains of a seed: original, critiques and revisions, with verdicts"),
    ("seed-N/pairs.jsonl", "its preference pairs, in TRL's columns"),
    ("seed-N/PHASE/metrics.jsonl", "a line for each training step; PHASE is sft, dpo or another arm's"),
    ("seed-N/PHASE/adapter/", "the trained adapter, in PEFT's format"),
    ("seed-N/PHASE/state-K/", "the training state after K steps, from which a stopped run goes on"),
    ("seed-N/PHASE/reference.jsonl", "the reference's log-probabilities of the pairs"),
    ("seed-N/evaluation/ARM/", "every answer of an arm with its verdict; step-K/ has those during training"),
    (paths.PAIRWISE, "which of two answers to a benign prompt the judge prefers, each arm's beside SFT's, both orders"),
    (f"{paths.replies('judge')}, {paths.replies('second-judge')}", "every reply of a judge that is a model"),
    (f"{paths.STYLE}, style/", "from `cai-base style RUN`: its figures and answers"),
    (f"{paths.SUITES}/", "from `cai-base evaluate RUN`: a folder for each suite"),
    (f"{paths.INSPECT}/", "logs for `inspect view`"),
)
"""The files of a run's folder, and what each is."""

COMMANDS = (
    ("cai-base resume RUN", "go on, if it was stopped"),
    ("cai-base report RUN", "write the page again"),
    ("cai-base verify RUN", "compute every figure again from the stored answers, and check every hash"),
    ("cai-base export RUN --out DIR", "take an arm along: PEFT adapter, merged folder, GGUF, or its preference pairs"),
    ("cai-base serve RUN", "every arm as a model of an OpenAI-compatible server on this machine"),
    ("cai-base run --from RUN", "repeat the run from this folder alone"),
    ("cai-base chat RUN", "type a prompt and see the arms answer side by side"),
    ("cai-base evaluate RUN --suite NAME", "ask its arms a published suite"),
)
"""What can be done with a run's folder."""


def folder_guide(model: str, scope: Scope, judge: JudgeName | None) -> str:
    """The README of a run on this base model. It holds no path: the folder may be moved."""
    seeds = f"{len(scope.seeds)} seed" + ("s" if len(scope.seeds) != 1 else "")
    width = max(len(command) for command, _ in COMMANDS)
    return "\n".join(
        [
            "# A run of cai-base",
            "",
            f"Constitutional AI from the base model `{model}`: {seeds}, the arms "
            f"{', '.join(scope.arms)}, judged by {judge}.",
            "",
            "## How to go on",
            "RUN stands for this folder.",
            "",
            "```",
            *(f"{command:<{width}}   {does}" for command, does in COMMANDS),
            "```",
            "",
            "## What is here",
            "A file is there once the run has come that far. Not every run has all of them.",
            "",
            "| file | what it is |",
            "| --- | --- |",
            *(f"| `{name}` | {about} |" for name, about in FILES),
            "",
        ]
    )
