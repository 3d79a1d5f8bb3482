"""From settings to the judge."""

from pathlib import Path

from cai_base.config import RunSettings, judge_kind
from cai_base.evaluation.endpoint import Endpoint, check_sdk
from cai_base.evaluation.judges import GroundTruth, Judge, NoJudge
from cai_base.evaluation.model_judge import ModelJudge
from cai_base.evaluation.replies import ReplyFile
from cai_base.inputs import Inputs
from cai_base.progress import Progress

REPLIES = "judge.jsonl"
"""The file of a run in which every reply of its judge is kept."""


def check_judge(settings: RunSettings) -> None:
    """See, before any work, that the judge can be asked. Nothing is asked.

    Raises:
        UserError: it cannot.
    """
    if judge_kind(settings.judge) == "openai":
        check_sdk()


def load_judge(settings: RunSettings, inputs: Inputs, directory: Path, progress: Progress) -> Judge:
    """The judge of a run.

    Raises:
        UserError: it cannot be asked, or the replies kept in the run's directory were changed.
    """
    check_judge(settings)
    if not settings.asks_a_model:
        return GroundTruth() if settings.judge == GroundTruth.name else NoJudge()
    assert settings.judge is not None
    assert settings.judge_url is not None
    source = Endpoint(settings.judge.partition(":")[2], settings.judge_url, settings.judging)
    rubrics = {rubric.task: rubric for rubric in inputs.rubrics}
    file = ReplyFile(directory / REPLIES)
    return ModelJudge(settings.judge, rubrics, settings.votes, source, file, progress)
