"""How well `cai_base.evaluation.fluency` detects broken language, on the embedded model's dev prompts.

    python benchmarks/fluency.py [--threads 1] [--answers RUN ...]

The base model answers the dev prompts, and these answers set the floor. Sound language that the base model finds less
likely comes from the generators of the corpus: helpful, partial and rude answers, refusals. Broken language is made
from the base model's answers: words shuffled, replaced, repeated or dropped. With `--answers` the answers stored in
finished runs are measured too. For each set of answers the table has the mean log-probability per token; the area
under the ROC curve against the base model's own answers (0.5: no different, 1: always less likely), by whole answer
and by opening; and the share called broken at several margins.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
from scipy import stats

from cai_base import embedded, randomness
from cai_base.dialogue import STOPS, Dialogue, prompt_tokens
from cai_base.engines import Lora, SampleRequest
from cai_base.engines.local import LocalEngine
from cai_base.evaluation import fluency
from cai_base.inputs.prompts import load_examples, load_prompts
from cai_base.store import JsonObject, read_lines
from cai_base.village import answers, world
from cai_base.village.draw import Draw

MARGINS = (0.0, 0.5, 1.0, 1.5, 2.0)
SAMPLES = 3
"""Answers of the base model to each prompt; only the first ones set the floor."""

Damage = Callable[[list[str], np.random.Generator, Sequence[str]], list[str]]
DAMAGES: dict[str, Damage] = {
    "words shuffled": lambda words, stream, _: list(stream.permutation(words)),
    "first 5 words shuffled": lambda words, stream, _: [*stream.permutation(words[:5]), *words[5:]],
    "first 5 words random": lambda words, stream, vocabulary: [*stream.choice(vocabulary, 5), *words[5:]],
    "first 3 words random": lambda words, stream, vocabulary: [*stream.choice(vocabulary, 3), *words[3:]],
    "half of the words dropped": lambda words, stream, _: [w for w in words if stream.random() < 0.5] or words[1:2],
    "all words random": lambda words, stream, vocabulary: list(stream.choice(vocabulary, 15)),
    "It soap, a lamb cloth.": lambda *_: ["It soap, a lamb cloth."],
    "first 3 words repeated": lambda words, *_: words[:3] * 12,
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--answers", type=Path, nargs="*", default=[], metavar="RUN")
    options = parser.parse_args()
    engine = LocalEngine(str(embedded.weights()), Lora(4, 4.0), sequence_length=512, threads=options.threads)
    dialogue = Dialogue(load_examples(embedded.data_file("few_shot.jsonl")), ())
    prompts = [prompt.text for prompt in load_prompts(embedded.data_file("dev.jsonl"))]
    sets = {f"base, draw {n + 1}": base_answers(engine, dialogue, prompts, n) for n in range(SAMPLES)}
    own = sets["base, draw 1"]
    for kind in get_args(answers.AnswerKind):
        sets[f"{kind} answers"] = [corpus_answer(prompt, kind) for prompt in prompts]
    vocabulary = sorted({word for prompt in prompts for word in prompt.split()})
    for name, damage in DAMAGES.items():
        stream = randomness.stream("benchmark", name)
        sets[name] = [answer(r["prompt"], " ".join(damage(r["response"].split(), stream, vocabulary))) for r in own]
    for run in options.answers:
        for arm in sorted({path.name for path in run.glob("seed-*/evaluation/*")}):
            files = sorted(run.glob(f"seed-*/evaluation/{arm}/*.jsonl"))
            sets[f"{run.name}, {arm}"] = [answer(r["prompt"], r["response"]) for f in files for r in read_lines(f)]
    for records in sets.values():
        texts = [(record["prompt"], record["response"]) for record in records]
        for record, one in zip(records, fluency.measure(engine, dialogue, texts), strict=True):
            record["likelihood"] = one
    report(sets, own)


def answer(prompt: str, response: str) -> JsonObject:
    """A record to measure."""
    return {"prompt": prompt, "response": response}


def corpus_answer(prompt: str, kind: answers.AnswerKind) -> JsonObject:
    """An answer of this kind, as in the corpus."""
    action = world.find_action(prompt)
    assert action is not None, prompt
    return answer(prompt, answers.answer(action, kind, Draw("benchmark", prompt, kind)))


def base_answers(engine: LocalEngine, dialogue: Dialogue, prompts: Sequence[str], draw: int) -> list[JsonObject]:
    """The base model's answers, sampled as in an evaluation."""
    requests = [
        SampleRequest(
            adapter=None,
            prompt=prompt_tokens(engine.tokenizer, dialogue.question(prompt)),
            max_tokens=64,
            temperature=0.7,
            stop=STOPS,
            seed=randomness.seed("benchmark", prompt, draw),
        )
        for prompt in prompts
    ]
    return [answer(p, s.text.strip()) for p, s in zip(prompts, engine.sample(requests), strict=True)]


def report(sets: dict[str, list[JsonObject]], own: list[JsonObject]) -> None:
    """Print one line for each set of answers."""
    floor = fluency.floor(record["likelihood"] for record in own)
    assert floor is not None
    print(json.dumps({"floor": floor.answer, "opening floor": floor.opening, "margin": fluency.MARGIN}))
    print(f"{'answers':<28}{'n':>5}{'mean':>8}{'opening':>9}{'AUC':>7}{'AUC o.':>7}   broken at {MARGINS}")
    for name, records in sets.items():
        measured = [record for record in records if record["likelihood"].answer is not None]
        means, areas = [], []
        for part in ("answer", "opening"):
            values = [getattr(record["likelihood"], part) for record in measured]
            of_base = [getattr(r["likelihood"], part) for r in own if r["likelihood"].answer is not None]
            means.append(float(np.mean(values)))
            areas.append(stats.mannwhitneyu(of_base, values).statistic / (len(of_base) * len(values)))
        shares = [
            np.mean([fluency.is_broken(r["response"], r["likelihood"], floor, margin) for r in measured])
            for margin in MARGINS
        ]
        rates = " ".join(f"{100 * share:6.1f}" for share in shares)
        print(f"{name:<28}{len(measured):>5}{means[0]:>8.2f}{means[1]:>9.2f}{areas[0]:>7.3f}{areas[1]:>7.3f}   {rates}")


if __name__ == "__main__":
    main()
