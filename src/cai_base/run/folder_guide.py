"""The README of a run's folder: what each file is, and what to do next."""

from cai_base import paths
from cai_base.settings.choices import Scope
from cai_base.settings.judges import JudgeName
from cai_base.store import CONFIG, MANIFEST

FILES = (
    (paths.RESULTS, "every figure, with intervals; equal runs have equal bytes; written at the end"),
    (f"{paths.REPORT_HTML}, {paths.REPORT_MARKDOWN}", "the figures as a page, with curves, chains and answers"),
    (f"{paths.FIGURES}/", "the page's figures as SVG and PDF"),
    (CONFIG, "every setting, as used"),
    (paths.INPUTS, "prompts, constitution, examples and rubrics, complete, as used"),
    (paths.PREFLIGHT, "the results of the checks before the run"),
    (paths.WARNINGS, "the warnings at the start of the run"),
    (MANIFEST, "the finished units, hashes of files, and versions, commit, device and date of each session"),
    (f"{paths.USAGE}, {paths.SPENDING}", "seconds, tokens and money"),
    (paths.chains("N"), "the revision chains of a seed: original, critiques and revisions, with verdicts"),
    (paths.pairs("N"), "its preference pairs, in TRL's columns"),
    (paths.metrics("N", "PHASE"), "one line per training step; PHASE is sft, dpo or the folder of another arm"),
    (f"{paths.adapter('N', 'PHASE')}/", "the trained adapter, in PEFT's format"),
    (f"{paths.state('N', 'PHASE', 'K')}/", "the training state after K steps, from which a stopped run continues"),
    (paths.reference("N", "PHASE"), "the pairs' log-probabilities under the reference"),
    (
        f"{paths.evaluation('N', 'ARM')}/",
        "every answer of an arm with its verdict; step-K/ has those at step K of training",
    ),
    (paths.PAIRWISE, "for benign prompts, whether the judge prefers each arm's answer or SFT's, in both orders"),
    (f"{paths.replies('judge')}, {paths.replies('second-judge')}", "every reply of a judge that is a model"),
    (paths.JUDGE_LABELS, "what the judge said of the labelled answers, from --judge-labels"),
    (f"{paths.STYLE}, style/", "from `cai-base style RUN`: its figures and answers"),
    (f"{paths.SUITES}/", "from `cai-base evaluate RUN`: a folder for each suite"),
    (f"{paths.INSPECT}/", "logs for `inspect view`"),
)
"""The files of a run's folder, and what each is."""

COMMANDS = (
    ("cai-base resume RUN", "continue a stopped run"),
    ("cai-base report RUN", "write the page again"),
    ("cai-base verify RUN", "check every hash, and recompute every figure from the stored answers"),
    ("cai-base export RUN --out DIR", "export an arm: PEFT adapter, merged folder, GGUF, or its preference pairs"),
    ("cai-base serve RUN", "serve every arm from an OpenAI-compatible server on this machine"),
    ("cai-base run --from RUN", "repeat the run, given only this folder"),
    ("cai-base chat RUN", "type a prompt and see the arms answer side by side"),
    ("cai-base evaluate RUN --suite NAME", "evaluate its arms on a published suite"),
)
"""The commands for a run's folder."""


def folder_guide(model: str, scope: Scope, judge: JudgeName | None) -> str:
    """The README of a run on this base model. It contains no path, because the folder may be moved."""
    seeds = f"{len(scope.seeds)} seed" + ("s" if len(scope.seeds) != 1 else "")
    width = max(len(command) for command, _ in COMMANDS)
    return "\n".join(
        [
            "# A run of cai-base",
            "",
            f"Constitutional AI from the base model `{model}`: {seeds}, the arms "
            f"{', '.join(scope.arms)}, judged by {judge}.",
            "",
            "## What to do next",
            "RUN stands for this folder.",
            "",
            "```",
            *(f"{command:<{width}}   {does}" for command, does in COMMANDS),
            "```",
            "",
            "## What is here",
            "A file appears when the run reaches it. Not every run has all of them.",
            "",
            "| file | what it is |",
            "| --- | --- |",
            *(f"| `{name}` | {about} |" for name, about in FILES),
            "",
        ]
    )
