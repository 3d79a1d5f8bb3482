"""Answers in styles, as the records that are stored, and what becomes of them: adherence, marks, gibberish."""

from collections.abc import Iterator, Mapping, Sequence

from cai_base import randomness
from cai_base.dialogue import Layout
from cai_base.engines import Adapter, Engine, SampleRequest
from cai_base.evaluation.fluency import off_the_rails
from cai_base.evaluation.judges import EMPTY, Judge
from cai_base.evaluation.judges.model_judge import ModelJudge
from cai_base.evaluation.tasks.styles import English, StyledPrompt, World
from cai_base.settings.schema import Evaluation
from cai_base.store import Record


def answer(
    engine: Engine,
    layout: Layout,
    settings: Evaluation,
    prompts: Sequence[StyledPrompt],
    samples: int,
    models: Mapping[int, Adapter | None],
) -> dict[int, list[Record]]:
    """Every model's answers to every styled prompt, in the arm's own layout; for each seed in the order of `keys`.

    A sample is drawn at the address (seed, prompt, number of the sample), the same for every arm.
    """
    asked = [(seed, adapter, prompt, n) for seed, adapter in models.items() for prompt, n in _each(prompts, samples)]
    requests = [
        SampleRequest(
            adapter=adapter,
            prompt=layout.question_tokens(engine.tokenizer, prompt.text),
            max_tokens=settings.response_tokens,
            temperature=settings.temperature,
            stop=layout.stops,
            seed=randomness.seed(seed, "style", prompt.id, f"sample {number}"),
        )
        for seed, adapter, prompt, number in asked
    ]
    records: dict[int, list[Record]] = {seed: [] for seed in models}
    for (seed, _, prompt, number), sample in zip(asked, engine.sample(requests), strict=True):
        records[seed].append(
            {
                "style": prompt.style,
                "question": prompt.question,
                "sample": number,
                "prompt": prompt.text,
                "response": sample.text.strip(),
                "truncated": sample.stop_reason == "length",
            }
        )
    return records


def keys(prompts: Sequence[StyledPrompt], samples: int) -> list[tuple[str, str, int, str]]:
    """What one model is asked: style, question, number of the sample, and the prompt's text."""
    return [(prompt.style, prompt.question, number, prompt.text) for prompt, number in _each(prompts, samples)]


def key(record: Record) -> tuple[str, str, int, str]:
    """What a stored answer answers, as in `keys`."""
    return record["style"], record["question"], record["sample"], record["prompt"]


def _each(prompts: Sequence[StyledPrompt], samples: int) -> Iterator[tuple[StyledPrompt, int]]:
    return ((prompt, number) for prompt in prompts for number in range(samples))


def mark_in_world(styles: World, records: Sequence[Record]) -> None:
    """Add what the ground truth says of each answer: `adherence` 0 or 1, `gibberish`; no answer is unscored."""
    for record in records:
        text, style = record["response"], record["style"]
        record["gibberish"] = styles.gibberish(text)
        record["adherence"] = float(styles.followed(text, style) and not record["gibberish"])
        record["unscored"] = None


def mark_in_english(styles: English, judge: Judge, records: Sequence[Record]) -> None:
    """Add what the judge says of each answer: `adherence` 1 to 5, `gibberish`, or why it is `unscored`.

    Gibberish is what the judge calls so, and endless repetition, which needs no judge. It has the least adherence.
    """
    if isinstance(judge, ModelJudge):
        found = judge.judge_styles([(styles.about(r["style"]), r["prompt"], r["response"]) for r in records])
    else:
        why = "the ground truth knows the village's styles alone" if judge.name == "ground-truth" else "no judge"
        found = [({}, EMPTY.unscored if not record["response"] else why, ()) for record in records]
    for record, (parts, unscored, said) in zip(records, found, strict=True):
        endless = off_the_rails(record["response"])
        record["gibberish"] = endless or bool(parts.get("gibberish", False))
        adherence = parts.get("style_adherence")
        record["adherence"] = 1.0 if record["gibberish"] and not unscored else adherence
        record["unscored"] = unscored
        if said:
            record["said"] = list(said)
