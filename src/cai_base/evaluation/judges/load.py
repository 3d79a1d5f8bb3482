"""From settings to the judges. How a kind of judge is loaded follows from its row in `settings.judges.JUDGE_KINDS`."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cai_base.engines import Engine
from cai_base.evaluation.judges import GroundTruth, Judge, NoJudge
from cai_base.evaluation.judges.chat_source import ChatSource
from cai_base.evaluation.judges.endpoint import Endpoint, check_sdk
from cai_base.evaluation.judges.grading import Grading, GuardGrading, RubricGrading
from cai_base.evaluation.judges.llama_server import LlamaServer, LlamaSource, check_file
from cai_base.evaluation.judges.model_judge import ModelJudge
from cai_base.evaluation.judges.refusal_phrases import RefusalPhrases
from cai_base.evaluation.judges.replies import ReplyFile, Source
from cai_base.inputs.rubrics import Rubric
from cai_base.models import check_chat_model, load_chat_model
from cai_base.paths import replies
from cai_base.progress import Progress
from cai_base.settings.choices import JudgeChoice
from cai_base.settings.engines import EngineKind
from cai_base.settings.judges import JudgeKind, JudgeName

GUARD_TOKENS = 64
"""Longest answer of a guard: a word or two, and what is violated."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a judge is loaded from.

    Attributes:
        rubrics: that a language model answers.
        file: where its replies are kept.
    """

    choice: JudgeChoice
    rubrics: Sequence[Rubric]
    file: ReplyFile
    progress: Progress


def _endpoint(context: Context) -> Judge:
    choice = context.choice
    assert choice.url is not None
    return _by_rubrics(context, Endpoint(choice.judge.name, choice.url, choice.sampling))


def _process(context: Context) -> Judge:
    choice, file = context.choice, Path(context.choice.judge.name)
    server = LlamaServer(file, choice.host.threads or len(os.sched_getaffinity(0)))
    return _by_rubrics(context, LlamaSource(server, file.name, choice.sampling, context.progress))


def _chat(context: Context) -> Judge:
    sampling = context.choice.sampling
    return _by_rubrics(context, ChatSource(_model(context), sampling.temperature, sampling.max_tokens))


def _guard(context: Context) -> Judge:
    source = ChatSource(_model(context), 0.0, GUARD_TOKENS)
    guard = GuardGrading()
    gradings: dict[str, Grading] = {guard.task: guard}
    # At temperature 0 all votes would be the same.
    return ModelJudge(str(context.choice.judge), gradings, 1, source, context.file, context.progress)


def _model(context: Context) -> partial[Engine]:
    return partial(load_chat_model, context.choice, context.progress)


def _by_rubrics(context: Context, source: Source) -> Judge:
    gradings: dict[str, Grading] = {rubric.task: RubricGrading(rubric) for rubric in context.rubrics}
    choice = context.choice
    return ModelJudge(str(choice.judge), gradings, choice.votes, source, context.file, context.progress)


def _load(context: Context) -> Judge:
    """The judge, as its kind's row in `JUDGE_KINDS` says. It asks nothing and loads no weights yet."""
    match context.choice.judge.kind:
        case JudgeKind(grades="nothing"):
            return NoJudge()
        case JudgeKind(grades="facts"):
            return GroundTruth()
        case JudgeKind(grades="phrases"):
            return RefusalPhrases()
        case JudgeKind(grades="guard"):
            return _guard(context)
        case JudgeKind(runs="url"):
            return _endpoint(context)
        case JudgeKind(runs="process"):
            return _process(context)
        case JudgeKind(engine=EngineKind()):
            return _chat(context)
        case kind:
            raise NotImplementedError(f"nothing loads a judge that runs {kind.runs!r} and grades by {kind.grades}")


def check_judges(choices: Mapping[str, JudgeChoice], progress: Progress) -> None:
    """See, before any work, that the judges can be asked. Nothing is asked, and no weights are loaded.

    Args:
        choices: `RunSettings.judge_choices`.

    Raises:
        UserError: one of them cannot.
    """
    for choice in choices.values():
        if choice.judge.kind.at_url:
            check_sdk()
        elif choice.judge.kind.runs == "process":
            check_file(choice.flag, choice.judge.name)
        elif choice.judge.kind.engine is not None:
            check_chat_model(choice, progress)


def load_judges(
    choices: Mapping[str, JudgeChoice], rubrics: Sequence[Rubric], directory: Path | None, progress: Progress
) -> dict[str, Judge]:
    """The judges of a run, by the flag that names each. Every reply of `judge` is kept in `judge.jsonl`, and so on.

    Args:
        choices: `RunSettings.judge_choices`.
        rubrics: that a language model answers.
        directory: the run's; None if it has none yet, see `keep_replies`.

    Raises:
        UserError: the replies kept in the run's directory were changed.
    """
    files = {flag: ReplyFile(directory and directory / replies(flag)) for flag in choices}
    return {flag: _load(Context(one, rubrics, files[flag], progress)) for flag, one in choices.items()}


def keep_replies(judges: Mapping[str, Judge], directory: Path) -> None:
    """Keep what was and will be replied in the run's directory."""
    for flag, judge in judges.items():
        judge.keep_in(directory / replies(flag))


def judge_name(judge: JudgeName | None) -> str | None:
    """What a judge is called in results: a local model without the folders that lead to it."""
    if judge is None:
        return None
    return f"{judge.kind_name}:{Path(judge.name).name}" if judge.kind.on_this_machine else str(judge)
