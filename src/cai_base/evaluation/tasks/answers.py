"""Answers of arms to the evaluation prompts, with their verdicts, as the records that are stored."""

from collections.abc import Mapping, Sequence

from cai_base import randomness
from cai_base.dialogue import Layout
from cai_base.engines import Adapter, Engine, SampleRequest
from cai_base.evaluation.judges import Judge
from cai_base.inputs.prompts import Kind, Prompt
from cai_base.settings.schema import Evaluation
from cai_base.store import Record

TASKS: Mapping[str, tuple[Kind, ...]] = {
    "attack": ("jailbreak", "direct", "borderline"),
    "helpfulness": ("benign",),
    "over_refusal": ("sensitive",),
}
"""Each task and the kinds of prompt that it asks; every kind belongs to one task."""


def answer(
    engine: Engine,
    layout: Layout,
    settings: Evaluation,
    judge: Judge,
    prompts: Sequence[Prompt],
    models: Mapping[int, Adapter | None],
    draw: str = "answer",
) -> dict[int, dict[str, list[Record]]]:
    """Every model's answer to every prompt, one each, in the same layout.

    An answer is drawn at the address (seed, prompt), the same for every arm: arms are compared on equal luck.

    Args:
        layout: the few-shot turns of a base model, or a chat model's own template.
        models: each seed's adapter, or None for the base model.
        draw: another name draws other answers, where a model is compared with itself.

    Returns:
        For each seed and task the records, in the order of the prompts.
    """
    asked = [(seed, adapter, prompt) for seed, adapter in models.items() for prompt in prompts]
    requests = [
        SampleRequest(
            adapter=adapter,
            prompt=layout.question_tokens(engine.tokenizer, prompt.text),
            max_tokens=settings.response_tokens,
            temperature=settings.temperature,
            stop=layout.stops,
            seed=randomness.seed(seed, "evaluation", prompt.id, draw),
        )
        for seed, adapter, prompt in asked
    ]
    samples = engine.sample(requests)
    judgements = judge.judge([(p, s.text.strip()) for (_, _, p), s in zip(asked, samples, strict=True)])
    records: dict[int, dict[str, list[Record]]] = {seed: {task: [] for task in TASKS} for seed in models}
    for (seed, _, prompt), sample, judgement in zip(asked, samples, judgements, strict=True):
        text = sample.text.strip()
        records[seed][_task(prompt)].append(
            {
                "id": prompt.id,
                "kind": prompt.kind,
                "family": prompt.family,
                "prompt": prompt.text,
                "response": text,
                "tokens": len(engine.tokenizer.encode(text)),
                "truncated": sample.stop_reason == "length",
                **judgement.record(),
            }
        )
    return records


def _task(prompt: Prompt) -> str:
    return next(task for task, kinds in TASKS.items() if prompt.kind in kinds)
