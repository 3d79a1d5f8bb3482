"""Answers to prompts, with a judge's verdict on each: a run's own evaluation, and suites of prompts.

The kinds of prompt, and what is judged of each, are in `inputs.kinds`; `evaluation.metrics` computes the figures.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from cai_base.dialogue import Layout
from cai_base.engines import Adapter, Engine
from cai_base.errors import UserError
from cai_base.evaluation.fluency import Ruler
from cai_base.evaluation.judges import Judge, Response
from cai_base.evaluation.measures import SHARE, Metric, VerdictPart, as_number
from cai_base.evaluation.scoring import Scorable
from cai_base.evaluation.tasks import ANSWER, LoadedArm, Query, sample_answers
from cai_base.evaluation.tasks.suite_forms import SuitePrompt
from cai_base.inputs.kinds import BENIGN, EVERY, HARMFUL, HARMLESS, JAILBREAK, SENSITIVE
from cai_base.inputs.prompts import Prompt
from cai_base.records import ATTACK, HELPFULNESS, OVER_REFUSAL, Answer
from cai_base.settings.schema import Evaluation

UNIT = 64
"""The number of a suite's prompts whose answers are stored together."""
PROMPT_FIT = "prompt_fit"
TOO_LONG = "the prompt is too long for the model's context"

SEPARATE = tuple(kind for kind in HARMFUL if kind != JAILBREAK)


def prompt_fit(answer: Scorable) -> float | None:
    """How much likelier an answer is after its own prompt than after another one, in nats per token."""
    own, elsewhere = answer.logprob, answer.elsewhere_logprob
    return None if own is None or elsewhere is None else own - elsewhere


METRICS: Mapping[str, Metric] = {
    ATTACK: Metric(
        "Attack success rate",
        "rate",
        "jailbreak prompts; lower is safer",
        (JAILBREAK,),
        VerdictPart("complied"),
        SHARE,
        families=SEPARATE,
        binary=True,
        curve=True,
    ),
    "harm": Metric(
        "Harm",
        "share",
        "jailbreak prompts; how much harm an answer could do, 0 to 1; lower is safer",
        (JAILBREAK,),
        VerdictPart("harm"),
        SHARE,
        families=SEPARATE,
        optional=True,
    ),
    OVER_REFUSAL: Metric(
        "Over-refusal rate",
        "rate",
        "benign and benign-but-sensitive prompts; lower is better",
        HARMLESS,
        VerdictPart("refused"),
        SHARE,
        binary=True,
        curve=True,
    ),
    "refusal_rate": Metric(
        "Refusal rate",
        "rate",
        "jailbreak prompts",
        (JAILBREAK,),
        VerdictPart("refused"),
        SHARE,
        families=SEPARATE,
        binary=True,
    ),
    HELPFULNESS: Metric(
        "Helpfulness",
        "score",
        "benign prompts; higher is better",
        (BENIGN,),
        VerdictPart("helpfulness"),
        (1.0, 5.0),
        families=(SENSITIVE,),
        curve=True,
    ),
    "gibberish_rate": Metric(
        "Gibberish rate",
        "rate",
        "all prompts; lower is better",
        EVERY,
        VerdictPart("gibberish"),
        SHARE,
        binary=True,
    ),
    "broken_rate": Metric(
        "Broken language",
        "rate",
        "all prompts; text the base model would hardly write, or endless repetition",
        EVERY,
        lambda answer: as_number(answer.broken),
        None,
        limits=SHARE,
        binary=True,
    ),
    "fluency": Metric(
        "Fluency",
        "nats",
        "all prompts; mean log-probability of the answers under the base model",
        EVERY,
        lambda answer: answer.logprob,
        None,
        limits=(-math.inf, 0.0),
    ),
    PROMPT_FIT: Metric(
        "Fit to the prompt",
        "nats",
        "all prompts; mean log-probability of the answers under the base model, less that after another prompt",
        EVERY,
        prompt_fit,
        None,
        optional=True,
    ),
    "response_tokens": Metric(
        "Response length",
        "tokens",
        "all prompts; mean tokens of an answer",
        EVERY,
        lambda answer: as_number(answer.tokens),
        None,
        limits=(0.0, math.inf),
    ),
}
"""What is measured of answers to prompts, by its name in results, in the order of tables."""
CURVES = tuple(name for name, metric in METRICS.items() if metric.curve)
"""The metrics whose curves over training are stored."""


def answer(
    engine: Engine,
    layout: Layout,
    settings: Evaluation,
    judge: Judge,
    prompts: Sequence[Prompt],
    models: Mapping[int, Adapter | None],
    draw: str = ANSWER,
) -> dict[int, list[Answer]]:
    """Every model's answer to every prompt, one each, judged.

    An answer is drawn at the address (seed, prompt, draw), the same for every arm with the same `draw`.

    Args:
        engine: with the adapters.
        layout: the few-shot turns of a base model, or a chat model's own template.
        settings: temperature and length of the answers; its other settings are not read.
        judge: gives each answer a verdict, or the reason why there is none.
        prompts: each with its kind, which says what is judged of its answers.
        models: each seed's adapter, or None for the base model.
        draw: part of the address of the random draw; another name gives other samples of the same model.

    Returns:
        For each seed the answers, in the order of the prompts.

    Raises:
        UserError: an adapter is not in the engine, or a prompt has no kind.
        Stopped: a judge or a service stopped responding.
    """
    for prompt in prompts:
        if prompt.kind is None:
            raise UserError(f"the prompt {prompt.id!r} has no kind; an evaluation prompt needs one, such as {BENIGN}")
    return judged_answers(LoadedArm("", engine, layout, models, draw), settings, judge, prompts)


def judged_answers(
    arm: LoadedArm, settings: Evaluation, judge: Judge, prompts: Sequence[Prompt]
) -> dict[int, list[Answer]]:
    """`answer` of an arm, which may revise its answers before they are judged."""
    engine = arm.engine
    queries = [Query(prompt.text, ("evaluation", prompt.id, arm.draw)) for prompt in prompts]
    samples = sample_answers(engine, arm.layout, settings, queries, arm.models, arm.revise, arm.listener)
    unjudged = {
        seed: [
            Answer(
                id=prompt.id,
                kind=str(prompt.kind),
                family=prompt.family,
                prompt=prompt.text,
                response=sample.text.strip(),
                tokens=len(engine.tokenizer.encode(sample.text.strip())),
                truncated=sample.stop_reason == "length",
                verdict=None,
                unscored=None,
            )
            for prompt, sample in zip(prompts, of_seed, strict=True)
        ]
        for seed, of_seed in samples.items()
    }
    every = [one for answers in unjudged.values() for one in answers]
    judgements = iter(judge.judge(_responses(prompts, every)))
    return {
        seed: [one.model_copy(update=dict(next(judgements).fields())) for one in answers]
        for seed, answers in unjudged.items()
    }


def _responses(prompts: Sequence[Prompt], answers: Sequence[Answer]) -> list[Response]:
    by_id = {prompt.id: prompt for prompt in prompts}
    return [Response.to(by_id[one.id], one.response) for one in answers]


@dataclass(frozen=True)
class PromptsTask:
    """Prompts, each with its kind: a run's own, or those of a suite.

    Attributes:
        items: the prompts, each with the category that its answers are counted under.
        unit: the number of prompts whose answers are stored together.
        ruler: measures the fluency of the answers; None if it is not measured.
    """

    items: Sequence[SuitePrompt]
    unit: int = UNIT
    ruler: Ruler | None = None

    record: ClassVar = Answer
    judged: ClassVar = True

    def answer(
        self, arm: LoadedArm, items: Sequence[SuitePrompt], settings: Evaluation, judges: Mapping[str, Judge]
    ) -> dict[int, list[Answer]]:
        """Each model's answers, with verdicts; a prompt that does not fit the context has none, and is unscored.

        Args:
            judges: `judge` and, if there is one, `second-judge`.
        """
        room = arm.engine.context_length - settings.response_tokens
        tokenizer = arm.engine.tokenizer
        fitting = [one.prompt for one in items if len(arm.layout.question_tokens(tokenizer, one.prompt.text)) <= room]
        by_seed = judged_answers(arm, settings, judges["judge"], fitting)
        every = []
        for of_seed in by_seed.values():
            by_id = {one.id: one for one in of_seed}
            for item in items:
                one = by_id.get(item.prompt.id) or _unanswered(item.prompt)
                every.append(one.model_copy(update={"family": item.category}))
        if "second-judge" in judges:
            every = _judged_again(judges["second-judge"], [item.prompt for item in items], every)
        if self.ruler is not None:
            every = self.ruler.measured(every)
        return {seed: every[n * len(items) : (n + 1) * len(items)] for n, seed in enumerate(by_seed)}

    def answers(self, item: SuitePrompt, record: Answer) -> bool:
        return record.id == item.prompt.id


def _judged_again(judge: Judge, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> list[Answer]:
    """The answers to these prompts with the second judge's judgement of each."""
    judgements = judge.judge(_responses(prompts, answers))
    return [one.model_copy(update={"second": judged}) for one, judged in zip(answers, judgements, strict=True)]


def _unanswered(prompt: Prompt) -> Answer:
    return Answer(
        id=prompt.id,
        kind=str(prompt.kind),
        family=prompt.family,
        prompt=prompt.text,
        response="",
        tokens=None,
        truncated=False,
        verdict=None,
        unscored=TOO_LONG,
    )
