"""Measures a judge against human labels of answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cai_base.errors import UserError
from cai_base.evaluation import judge_errors
from cai_base.evaluation.judges.load import check_judges, judge_name, load_judges
from cai_base.evaluation.statistics.misclassification import Confusion, Estimate, share
from cai_base.inputs.labels import LabelledAnswer, read_labels
from cai_base.inputs.rubrics import Rubric
from cai_base.paths import replies
from cai_base.progress import Progress
from cai_base.reading import parse_json, read_text
from cai_base.records import JudgeLabels
from cai_base.run.identity import judge_files
from cai_base.settings.choices import JudgeChoice
from cai_base.store import CONFIG, JsonObject, check_folder_to_write, make_folder, to_json, write_atomic
from cai_base.store.files import differences

CALIBRATION = "calibration.json"


@dataclass(frozen=True, slots=True)
class Calibration:
    """Agreement of a judge's refusals with human labels.

    Attributes:
        answers, scored: how many were labelled, and how many the judge gave a verdict on.
        annotators: how often the two annotators agree; None if the file does not have both.
        labels: the same by metric, as a run is corrected by it.
    """

    judge: str
    answers: int
    scored: int
    confusion: Confusion
    annotators: Estimate | None
    labels: JudgeLabels

    def dump(self) -> dict[str, object]:
        """The content of the stored file: counts, and shares with their 95 % intervals."""
        shares = {name: getattr(self.confusion, name)._asdict() for name in ("sensitivity", "specificity", "agreement")}
        counts = {name: getattr(self.confusion, name) for name in ("true_yes", "false_no", "true_no", "false_yes")}
        annotators = None if self.annotators is None else self.annotators._asdict()
        head = {"judge": self.judge, "part": "refused", "answers": self.answers, "scored": self.scored}
        return head | {"counts": counts} | shares | {"annotators": annotators, "labels": self.labels.dump()}


def calibrate(
    choice: JudgeChoice, rubrics: Sequence[Rubric], labels: Path, out: Path, progress: Progress
) -> Calibration:
    """Judge every labelled answer, and compare. Replies are stored in `out`, so no request is sent twice.

    Args:
        rubrics: that a language model answers.

    Raises:
        UserError: the labels or the judge have a fault, the scored answers lack one of the two labels, or `out` has
            the replies of another judge, or of this one asked in another way.
        Stopped: the judge became unavailable; the same command continues.
    """
    labelled = read_labels(labels)
    answers, choices = labelled.answers, {choice.flag: choice}
    check_folder_to_write(out)
    check_judges(choices, progress)
    make_folder(out)
    _claim(out, choice, _asked_with(choice, rubrics))
    judge = load_judges(choices, rubrics, out, progress)[choice.flag]
    judgements = judge.judge(judge_errors.responses(answers))
    verdicts = [None if one.verdict is None else one.verdict.refused for one in judgements]
    pairs = [(one.refused, verdict) for one, verdict in zip(answers, verdicts, strict=True) if verdict is not None]
    if {refused for refused, _ in pairs} != {True, False}:
        raise UserError(
            f"--judge {judge.name}: scored {len(pairs)} of {len(answers)} answers; it must score answers of both labels"
        )
    name = judge_name(choice.judge) or judge.name
    by_metric = judge_errors.judge_labels(labelled, judgements)
    result = Calibration(name, len(answers), len(pairs), Confusion.of(pairs), _annotators(answers), by_metric)
    write_atomic(out / CALIBRATION, to_json(result.dump()))
    return result


def _asked_with(choice: JudgeChoice, rubrics: Sequence[Rubric]) -> JsonObject:
    """Everything that decides what the judge replies: stored replies are of these settings alone."""
    return {
        "judge": str(choice.judge),
        "judge-url": choice.url,
        "judge-tokenizer": None if choice.tokenizer is None else str(choice.tokenizer),
        "judge files": judge_files({choice.flag: choice}),
        "votes": choice.votes,
        "judging": {"temperature": choice.sampling.temperature, "max-tokens": choice.sampling.max_tokens},
        "rubrics": {rubric.task: rubric.digest for rubric in rubrics},
        "tinker-url": choice.host.url if choice.judge.kind.served else None,
        "dtype": choice.host.dtype if choice.judge.kind.on_this_machine else None,
    }


def _claim(out: Path, choice: JudgeChoice, asked_with: JsonObject) -> None:
    """Store how the judge is asked, or check that the replies in a folder are of these settings.

    Raises:
        UserError: they are of others, or of an earlier version, which did not store them.
    """
    path = out / CONFIG
    if not path.exists():
        if (out / replies(choice.flag)).exists():
            raise UserError(
                f"{out}: has a judge's replies, and no {CONFIG} that says how it was asked; give another --out"
            )
        write_atomic(path, to_json(asked_with))
        return
    stored = parse_json(path, read_text(path, "the settings of a calibration"))
    for field, was, now in differences(stored, asked_with):
        raise UserError(f"{out}: has the replies of another judge ({field} was {was} and is {now}); give another --out")


def _annotators(answers: Sequence[LabelledAnswer]) -> Estimate | None:
    both = [one.annotations for one in answers if len(one.annotations) > 1]
    return share(sum(first == second for first, second in both), len(both)) if both else None
