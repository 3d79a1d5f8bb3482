"""A language model as the judge: it votes on every response, and its votes become one verdict."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from cai_base.engines import Meter
from cai_base.evaluation.judges import EMPTY, Judge, Response, unscored, verdict_of
from cai_base.evaluation.judges.grading import Grading, Parts
from cai_base.evaluation.judges.question import Unreadable
from cai_base.evaluation.judges.replies import Question, Reply, ReplyFile, Source
from cai_base.progress import Progress
from cai_base.records import Judgement, Vote

NOT_ASKED = "this judge is not asked about it"
"""The reason for a missing verdict on helpfulness if the judge is a guard model."""


class ModelJudge(Judge):
    """A judge that asks a model. Its replies are stored in `file`, so that no question is asked twice.

    Args:
        name: of the judge, such as `openai:some-model`.
        gradings: the way of grading for each task.
        votes: the number of votes per response and task; odd.
        source: answers the questions.
        file: stores the replies.
        progress: shows a bar.
    """

    def __init__(
        self,
        name: str,
        gradings: Mapping[str, Grading],
        votes: int,
        source: Source,
        file: ReplyFile,
        progress: Progress,
    ) -> None:
        self.name = name
        self._gradings, self._votes, self._source, self._file, self._progress = gradings, votes, source, file, progress

    @property
    def meter(self) -> Meter:
        return self._source.meter

    def keep_in(self, path: Path) -> None:
        self._file.keep_in(path)

    def judge(self, responses: Sequence[Response]) -> list[Judgement]:
        questions = [self._questions(response) for response in responses]
        replies = self._replies([question for of_one in questions for question in of_one])
        return [
            self._judgement(
                response, [(question.grading.task, _vote(question, replies[question.key])) for question in of_one]
            )
            for response, of_one in zip(responses, questions, strict=True)
        ]

    def _questions(self, response: Response) -> list[Question]:
        if response.empty:
            return []
        return [
            Question(self.name, self._gradings[task], response, vote)
            for task in response.rubrics
            if task in self._gradings
            for vote in range(self._votes)
        ]

    def _replies(self, questions: Sequence[Question]) -> dict[str, Reply]:
        """A reply to every question, by its key."""
        stored = {question.key: self._file.get(question) for question in questions}
        replies = {key: reply for key, reply in stored.items() if reply is not None}
        missing = {question.key: question for question in questions if question.key not in replies}
        if not missing:
            return replies
        with self._progress.bar("judging", len(stored), len(replies), "questions") as bar:

            def keep(question: Question, reply: Reply) -> None:
                if reply.final:
                    self._file.add(question, reply)
                replies[question.key] = reply
                bar.advance(1)

            self._source.ask(list(missing.values()), keep)
        return replies

    def _judgement(self, response: Response, votes: Sequence[tuple[str, Vote]]) -> Judgement:
        """The verdict of all votes.

        Args:
            votes: each with the task of the rubric that it answers.
        """
        if response.empty:
            return unscored(EMPTY)
        if not response.rubrics:
            return unscored("the prompt has no kind")
        parts: dict[str, bool | int | float] = {}
        reasons: list[str] = []
        for task in response.rubrics:
            more, reason = _combined([vote for about, vote in votes if about == task])
            parts |= more
            if reason:
                reasons.append(reason if len(response.rubrics) == 1 else f"{task}: {reason}")
        judgement = Judgement(verdict=verdict_of(parts) if parts else None, unscored="; ".join(reasons) or None)
        return judgement.model_copy(update={"votes": tuple(vote for _, vote in votes)}) if votes else judgement


def _vote(question: Question, reply: Reply) -> Vote:
    """The parsed answer of a reply."""
    rubric, reason = question.grading.name, reply.failure
    if reason is None:
        grade = question.grading.read(reply.text, "\n".join(question.response.texts))
        if not isinstance(grade, Unreadable):
            return Vote(rubric=rubric, vote=question.vote, answer=dict(grade.answer), verdict=dict(grade.parts))
        reason = grade.reason
    return Vote(rubric=rubric, vote=question.vote, unscored=reason, raw=reply.text)


def _combined(votes: Sequence[Vote]) -> tuple[Parts, str | None]:
    """The verdict of several votes, and the reason why a part of it is missing.

    A yes-no part is the majority, a number is the mean. More than half of the votes must be scored.
    """
    if not votes:
        return {}, NOT_ASKED
    scored = [vote.verdict for vote in votes if vote.verdict is not None]
    if 2 * len(scored) <= len(votes):
        reasons = Counter(vote.unscored for vote in votes if vote.unscored is not None)
        return {}, reasons.most_common(1)[0][0]
    parts: dict[str, bool | float] = {}
    ties = []
    for name in scored[0]:
        values = [verdict[name] for verdict in scored]
        total = sum(values)
        if not isinstance(values[0], bool):
            parts[name] = total / len(values)
        elif 2 * total != len(values):
            parts[name] = 2 * total > len(values)
        else:
            ties.append(name)
    return parts, f"as many votes for as against: {', '.join(ties)}" if ties else None
