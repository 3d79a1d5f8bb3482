"""From settings to the judges. How a kind of judge is loaded follows from its row in `settings.judges.JUDGE_KINDS`."""

import os
from collections.abc import Mapping
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
from cai_base.inputs import Inputs
from cai_base.models import check_chat_model, load_chat_model
from cai_base.paths import replies
from cai_base.progress import Progress
from cai_base.settings.judges import NO_JUDGE, JudgeKind, JudgeName
from cai_base.settings.schema import RunSettings

GUARD_TOKENS = 64
"""Longest answer of a guard: a word or two, and what is violated."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a judge is loaded from.

    Attributes:
        flag: the flag that names it, `judge` or `second-judge`.
        judge: as it was given there.
        file: where its replies are kept.
    """

    settings: RunSettings
    inputs: Inputs
    flag: str
    judge: JudgeName
    file: ReplyFile
    progress: Progress


def _endpoint(context: Context) -> Judge:
    settings = context.settings
    url = settings.judge_url if context.flag == "judge" else settings.second_judge_url
    assert url is not None
    return _by_rubrics(context, Endpoint(context.judge.name, url, settings.judging))


def _process(context: Context) -> Judge:
    file, settings = Path(context.judge.name), context.settings
    server = LlamaServer(file, settings.threads or len(os.sched_getaffinity(0)))
    return _by_rubrics(context, LlamaSource(server, file.name, settings.judging, context.progress))


def _chat(context: Context) -> Judge:
    judging = context.settings.judging
    return _by_rubrics(context, ChatSource(_model(context), judging.temperature, judging.max_tokens))


def _guard(context: Context) -> Judge:
    source = ChatSource(_model(context), 0.0, GUARD_TOKENS)
    guard = GuardGrading()
    gradings: dict[str, Grading] = {guard.task: guard}
    # At temperature 0 all votes would be the same.
    return ModelJudge(str(context.judge), gradings, 1, source, context.file, context.progress)


def _model(context: Context) -> partial[Engine]:
    return partial(load_chat_model, context.settings, context.judge, f"--{context.flag}", context.progress)


def _by_rubrics(context: Context, source: Source) -> Judge:
    gradings: dict[str, Grading] = {rubric.task: RubricGrading(rubric) for rubric in context.inputs.rubrics}
    votes = context.settings.votes
    return ModelJudge(str(context.judge), gradings, votes, source, context.file, context.progress)


def _load(context: Context) -> Judge:
    """The judge, as its kind's row in `JUDGE_KINDS` says. It asks nothing and loads no weights yet."""
    match context.judge.kind:
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
        case _:
            return _chat(context)


def check_judges(settings: RunSettings, progress: Progress) -> None:
    """See, before any work, that the judges can be asked. Nothing is asked, and no weights are loaded.

    Raises:
        UserError: one of them cannot.
    """
    for flag, judge in settings.judges.items():
        if judge.kind.at_url:
            check_sdk()
        elif judge.kind.runs == "process":
            check_file(flag, judge.name)
        elif judge.kind.runs is not None:
            check_chat_model(settings, judge, f"--{flag}", progress)


def load_judges(settings: RunSettings, inputs: Inputs, directory: Path | None, progress: Progress) -> dict[str, Judge]:
    """The judges of a run, by the flag that names each. Every reply of `judge` is kept in `judge.jsonl`, and so on.

    Args:
        directory: the run's; None if it has none yet, see `keep_replies`.

    Raises:
        UserError: the replies kept in the run's directory were changed.
    """
    judges: dict[str, Judge] = {}
    for flag, judge in ({"judge": JudgeName(NO_JUDGE)} | settings.judges).items():
        file = ReplyFile(directory and directory / replies(flag))
        judges[flag] = _load(Context(settings, inputs, flag, judge, file, progress))
    return judges


def keep_replies(judges: Mapping[str, Judge], directory: Path) -> None:
    """Keep what was and will be replied in the run's directory."""
    for flag, judge in judges.items():
        judge.keep_in(directory / replies(flag))


def judge_name(judge: JudgeName | None) -> str | None:
    """What a judge is called in results: a local model without the folders that lead to it."""
    if judge is None:
        return None
    return f"{judge.kind_name}:{Path(judge.name).name}" if judge.kind.runs in ("local", "process") else str(judge)
