"""What a run costs on a service that is paid by the token: an upper bound before it, an account after it.

A service charges for three things: tokens trained on (forward and backward), tokens read (prompts before sampling, and
forward passes alone), and tokens drawn.
"""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from cai_base.dialogue import END, Dialogue, prompt_tokens
from cai_base.engines import Tokenizer, Usage
from cai_base.errors import UserError
from cai_base.evaluation.fluency import OPENING
from cai_base.evaluation.judges.question import question
from cai_base.inputs import Inputs
from cai_base.inputs.prompts import KINDS, Prompt
from cai_base.method.training import trained_sequence
from cai_base.run.preflight.models import PILOT, SHORT
from cai_base.settings.schema import RunSettings, Training

BARE = 8 * 2 * SHORT
"""Tokens of preflight's eight bare questions, and of what is drawn after them."""


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens, and where they were read."""

    prefill: float
    sample: float
    train: float
    source: str

    def of(self, usage: Usage) -> float:
        """What these tokens cost, in dollars."""
        return (usage.prefilled * self.prefill + usage.sampled * self.sample + usage.trained * self.train) / 1e6


FREE = Price(0.0, 0.0, 0.0, "no service has a part in it")


def paid_models(settings: RunSettings) -> dict[str, str]:
    """The models that a service is paid for, by their work: `method`, `instruct`, or the flag that names a judge."""
    models = {"method": settings.model} if settings.engine == "tinker" else {}
    if models and settings.instruct is not None:
        models["instruct"] = settings.instruct
    return models | {flag: judge.name for flag, judge in settings.judges.items() if judge.kind == "tinker"}


def check_limit(settings: RunSettings) -> None:
    """Raises UserError if there is a limit to what a run may cost, and one of its models has no known price."""
    for model in paid_models(settings).values():
        if settings.max_cost is not None and price(settings, model) is None:
            raise UserError(f"--max-cost: no price is known for {model}; give --price, see cai-base cost --help")


def price(settings: RunSettings, model: str) -> Price | None:
    """The price of a model: `--price`, which holds for all of a run's, else the packaged table's; None if it has none.

    Raises:
        UserError: `--price` is not three numbers.
    """
    if settings.price is not None:
        try:
            prefill, sample, train = (float(part) for part in settings.price.split(","))
        except ValueError:
            prefill = sample = train = -1.0
        if not min(prefill, sample, train) >= 0:
            raise UserError(
                f"--price {settings.price}: give dollars per million tokens read, sampled and trained on, such as "
                "0.13,0.40,0.40"
            )
        return Price(prefill, sample, train, "--price")
    table = tomllib.loads((resources.files("cai_base") / "data" / "prices.toml").read_text(encoding="utf-8"))
    row = table.get(model)
    if row is None:
        return None
    return Price(row["prefill"], row["sample"], row["train"], f"{row['source']}, {row['date']}")


def estimate(settings: RunSettings, inputs: Inputs, tokenizer: Tokenizer) -> dict[str, Usage]:
    """The most tokens that each phase can take, for all seeds: responses as long as they may be, no chain filtered."""
    dialogue = Dialogue(inputs.few_shot, inputs.critique_examples)
    seeds, revision, evaluation = settings.seeds, settings.revision, settings.evaluation

    def length(text: str) -> int:
        return len(prompt_tokens(tokenizer, text))

    questions = [length(dialogue.question(prompt.text)) for prompt in inputs.prompts]
    longest = [question + revision.response_tokens + len(tokenizer.encode(END)) for question in questions]
    examples = [len(trained_sequence(tokenizer, dialogue, e.prompt, e.response).tokens) for e in inputs.examples]

    principles, by_length = inputs.constitution.principles, sorted(inputs.prompts, key=lambda p: len(p.text))
    middle = by_length[len(by_length) // 2].text
    critique = _mean([length(dialogue.critique(middle, "", one)) for one in principles]) + revision.response_tokens
    revised = _mean([length(dialogue.revision(middle, "", one, "")) for one in principles])
    revised += revision.response_tokens + revision.critique_tokens
    revisions = 1 + ("placebo" in settings.controls)
    chains = seeds * len(questions)
    asked = [length(dialogue.question(prompt.text)) for prompt in inputs.evaluation_prompts]
    answered = 2 * sum(asked) + len(asked) * (evaluation.response_tokens + OPENING)  # whole, and its opening
    phases = {"sft": settings.sft, "cai": settings.dpo, "sl-cai": settings.sl_cai}
    evaluations = 1 + sum(_evaluations(settings, phases[arm]) for arm in settings.trained_arms) + len(settings.controls)
    pair = 2 * _mean(longest)
    found = {
        "preflight": Usage(
            prefilled=BARE + (PILOT + 3) * max(asked), sampled=PILOT * evaluation.response_tokens + BARE + 3 * SHORT
        ),
        "sft": Usage(trained=_whole(seeds * settings.sft.steps * settings.sft.batch_size * _mean(examples))),
        "revision": Usage(
            prefilled=_whole(revisions * (seeds * sum(questions) + chains * revision.rounds * (critique + revised))),
            sampled=revisions
            * chains
            * (revision.response_tokens + revision.rounds * (revision.critique_tokens + revision.response_tokens)),
        ),
    }
    by_preference = {"cai": "dpo", "shuffled": "shuffled", "placebo": "placebo"}
    for arm in (arm for arm in by_preference if arm in (*settings.trained_arms, *settings.controls)):
        drawn = seeds * settings.dpo.steps * settings.dpo.batch_size
        held_out = chains * settings.dpo.held_out * _evaluations(settings, settings.dpo)
        # A loss of one's own takes a forward pass before the one that is differentiated.
        found[by_preference[arm]] = Usage(
            trained=_whole(drawn * pair), prefilled=_whole((drawn + chains + held_out) * pair)
        )
    if "sl-cai" in settings.trained_arms:
        drawn = seeds * settings.sl_cai.steps * settings.sl_cai.batch_size
        found["sl-cai"] = Usage(trained=_whole(drawn * _mean(longest)))
    found["evaluation"] = Usage(
        # At the end, the base model is asked how likely it finds every answer.
        prefilled=seeds * (evaluations * sum(asked) + len(settings.evaluated_arms) * answered),
        sampled=seeds * evaluations * len(asked) * evaluation.response_tokens,
    )
    if "instruct" in settings.evaluated_arms:
        found["instruct"] = Usage(prefilled=seeds * sum(asked), sampled=seeds * len(asked) * evaluation.response_tokens)
    for flag in (flag for flag in settings.judges if flag in paid_models(settings)):
        answers = [(inputs.evaluation_prompts, seeds * (evaluations + ("instruct" in found)))]
        revised_too = [(inputs.prompts, revisions * seeds * (1 + revision.rounds))] if flag == "judge" else []
        response = max(revision.response_tokens, evaluation.response_tokens)
        found[flag] = total(
            _judged(settings, inputs, tokenizer, prompts, times, response) for prompts, times in answers + revised_too
        )
    return found


def _judged(
    settings: RunSettings, inputs: Inputs, tokenizer: Tokenizer, prompts: Sequence[Prompt], times: int, response: int
) -> Usage:
    """What it takes to judge so many responses to each of these prompts, under the rubrics of its kind."""
    rubrics = {rubric.task: rubric for rubric in inputs.rubrics}
    asked = [
        question(rubrics[task], {"prompt": prompt.text, "response": ""})
        for prompt in prompts
        if prompt.kind is not None
        for task in KINDS[prompt.kind].rubrics
    ]
    read = sum(len(prompt_tokens(tokenizer, text)) + response for text in asked)
    votes = times * settings.votes
    return Usage(prefilled=votes * read, sampled=votes * len(asked) * settings.judging.max_tokens)


def dollars(settings: RunSettings, found: Mapping[str, Usage]) -> float | None:
    """What the phases cost together; None where a price is not known."""
    spent = 0.0
    for work, known in _prices(settings, found).items():
        if known is None:
            return None
        spent += known.of(found[work])
    return round(spent, 6)


def _prices(settings: RunSettings, found: Mapping[str, Usage]) -> dict[str, Price | None]:
    """The price of each phase; for a run that pays no service, what it would be on one."""
    models = paid_models(settings) or {"method": settings.model}
    owners = {work: work if work in ("instruct", *settings.judges) else "method" for work in found}
    return {work: price(settings, models[own]) if own in models else FREE for work, own in owners.items()}


def total(usages: Iterable[Usage]) -> Usage:
    """Their sum."""
    added = Usage()
    for usage in usages:
        added.add(usage)
    return added


def render(settings: RunSettings, found: Mapping[str, Usage]) -> str:
    """The estimate as a table, and what it rests on."""
    prices = _prices(settings, found)
    money = {work: None if known is None else known.of(found[work]) for work, known in prices.items()}
    money["all"] = dollars(settings, found)
    lines = [f"{'phase':<12}{'read':>15}{'sampled':>15}{'trained on':>15}{'dollars':>12}"]
    for name, usage in {**found, "all": total(found.values())}.items():
        costs = "-" if money[name] is None else f"{money[name]:,.2f}"
        lines.append(f"{name:<12}{usage.prefilled:>15,}{usage.sampled:>15,}{usage.trained:>15,}{costs:>12}")
    lines.append("")
    lines.append("At most: every response is counted as long as it may be, and no chain as filtered out.")
    paid = paid_models(settings)
    if not paid:
        lines.append("This run pays no service; for the price of the same on one, add --engine tinker --model MODEL.")
    for model in dict.fromkeys(paid.values() or [settings.model]):
        known = price(settings, model)
        if known is None and paid:
            lines.append(f"No price is known for {model}; give --price READ,SAMPLED,TRAINED, dollars a million tokens.")
        elif known is not None:
            each = f"{known.prefill:g} read, {known.sample:g} sampled, {known.train:g} trained on"
            lines.append(f"Dollars per million tokens of {model}: {each} ({known.source}).")
    return "\n".join(lines) + "\n"


def _evaluations(settings: RunSettings, phase: Training) -> int:
    """How often an arm is evaluated: at every interval, and at its end."""
    return -(-phase.steps // settings.evaluate_every)


def _mean(values: list[int]) -> float:
    return sum(values) / len(values)


def _whole(value: float) -> int:
    return round(value)
