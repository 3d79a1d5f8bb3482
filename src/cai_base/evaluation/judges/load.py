"""From settings to the judges."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from cai_base.evaluation.judges import GroundTruth, Judge, NoJudge
from cai_base.evaluation.judges.chat_source import ChatSource
from cai_base.evaluation.judges.endpoint import Endpoint, check_sdk
from cai_base.evaluation.judges.grading import ByGuard, ByRubric, Grading
from cai_base.evaluation.judges.model_judge import ModelJudge
from cai_base.evaluation.judges.replies import ReplyFile, Source
from cai_base.inputs import Inputs
from cai_base.inputs.rubrics import Task
from cai_base.models import CHAT_JUDGES, check_chat_model, load_chat_model
from cai_base.progress import Progress
from cai_base.settings.schema import JudgeName, RunSettings

GUARD_TOKENS = 64
"""Longest answer of a guard: a word or two, and what is violated."""


def check_judges(settings: RunSettings, progress: Progress) -> None:
    """See, before any work, that the judges can be asked. Nothing is asked, and no weights are loaded.

    Raises:
        UserError: one of them cannot.
    """
    for flag, judge in settings.judges.items():
        if judge.kind == "openai":
            check_sdk()
        elif judge.kind in CHAT_JUDGES:
            check_chat_model(settings, judge, f"--{flag}", progress)


def load_judges(settings: RunSettings, inputs: Inputs, directory: Path | None, progress: Progress) -> dict[str, Judge]:
    """The judges of a run, by the flag that names each. Every reply of `judge` is kept in `judge.jsonl`, and so on.

    Args:
        directory: the run's; None if it has none yet, see `keep_replies`.

    Raises:
        UserError: the replies kept in the run's directory were changed.
    """
    return {
        flag: _load(settings, inputs, flag, ReplyFile(directory and _file(directory, flag)), progress)
        for flag in {"judge": None, **settings.judges}
    }


def keep_replies(judges: Mapping[str, Judge], directory: Path) -> None:
    """Keep what was and will be replied in the run's directory."""
    for flag, judge in judges.items():
        if isinstance(judge, ModelJudge):
            judge.keep_in(_file(directory, flag))


def _file(directory: Path, flag: str) -> Path:
    return directory / f"{flag}.jsonl"


def judge_name(judge: JudgeName | None) -> str | None:
    """What a judge is called in results: a model without the folders that lead to it."""
    if judge is None:
        return None
    return f"{judge.kind}:{Path(judge.name).name}" if judge.kind in ("hf", "hf-guard") else str(judge)


def _load(settings: RunSettings, inputs: Inputs, flag: str, file: ReplyFile, progress: Progress) -> Judge:
    judge = settings.judges.get(flag, JudgeName("none"))
    if judge.kind in ("ground-truth", "none"):
        return GroundTruth() if judge.kind == GroundTruth.name else NoJudge()
    gradings: dict[Task, Grading] = {rubric.task: ByRubric(rubric) for rubric in inputs.rubrics}
    votes, source = settings.votes, _source(settings, flag, judge, progress)
    if judge.kind == "hf-guard":
        gradings, votes = {"attack": ByGuard()}, 1  # at temperature 0 all its votes would be the same
    return ModelJudge(str(judge), gradings, votes, source, file, progress)


def _source(settings: RunSettings, flag: str, judge: JudgeName, progress: Progress) -> Source:
    if judge.kind == "openai":
        url = settings.judge_url if flag == "judge" else settings.second_judge_url
        assert url is not None
        return Endpoint(judge.name, url, settings.judging)
    load = partial(load_chat_model, settings, judge, f"--{flag}", progress)
    if judge.kind == "hf-guard":
        return ChatSource(load, 0.0, GUARD_TOKENS)
    return ChatSource(load, settings.judging.temperature, settings.judging.max_tokens)
