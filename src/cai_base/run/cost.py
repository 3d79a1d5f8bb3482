"""What a run costs on a service that is paid by the token: an upper bound before it, an account after it.

A service charges for three things: tokens trained on (forward and backward), tokens read (prompts before sampling, and
forward passes alone), and tokens drawn.
"""

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources

from cai_base import arms
from cai_base.dialogue import Dialogue, prompt_tokens
from cai_base.engines import Tokenizer, Usage
from cai_base.errors import UserError
from cai_base.evaluation.fluency import OPENING
from cai_base.evaluation.judges.question import question
from cai_base.inputs import Inputs, gather
from cai_base.inputs.prompts import KINDS, Prompt
from cai_base.method.phase import Phase, Size
from cai_base.method.revision import RevisionPhase
from cai_base.models import engine_kind, load_tokenizer
from cai_base.run.preflight.models import PILOT, SHORT
from cai_base.settings.schema import RunSettings
from cai_base.store import to_json

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
    models = {"method": settings.model} if engine_kind(settings.engine).paid else {}
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


def run_size(settings: RunSettings, inputs: Inputs, tokenizer: Tokenizer) -> Size:
    """How large a run is, for the cost of its phases."""
    return Size(
        tokenizer,
        Dialogue(inputs.few_shot, inputs.critique_examples),
        settings.seeds,
        inputs.prompts,
        settings.revision.response_tokens,
        settings.evaluate_every,
    )


def estimate(settings: RunSettings, inputs: Inputs, tokenizer: Tokenizer, phases: Sequence[Phase]) -> dict[str, Usage]:
    """The most tokens that each phase can take, for all seeds: responses as long as they may be, no chain filtered.

    Preflight and the evaluations come beside what the phases say of themselves.
    """
    size, evaluation, seeds = run_size(settings, inputs, tokenizer), settings.evaluation, settings.seeds
    asked = [size.length(size.dialogue.question(prompt.text)) for prompt in inputs.evaluation_prompts]
    usages = {
        "preflight": Usage(
            prefilled=BARE + (PILOT + 3) * max(asked), sampled=PILOT * evaluation.response_tokens + BARE + 3 * SHORT
        )
    }
    for phase in phases:
        cost = phase.cost(size)
        if cost != Usage():
            usages[phase.name] = cost
    evaluations = _evaluations(settings, size)
    answered = 2 * sum(asked) + len(asked) * (evaluation.response_tokens + OPENING)  # whole, and its opening
    usages["evaluation"] = Usage(
        # At the end, the base model is asked how likely it finds every answer.
        prefilled=seeds * (evaluations * sum(asked) + len(settings.evaluated_arms) * answered),
        sampled=seeds * evaluations * len(asked) * evaluation.response_tokens,
    )
    if "instruct" in settings.evaluated_arms:
        sampled = seeds * len(asked) * evaluation.response_tokens
        usages["instruct"] = Usage(prefilled=seeds * sum(asked), sampled=sampled)
    paid_judges = [flag for flag in settings.judges if flag in paid_models(settings)]
    revisions = sum(isinstance(phase, RevisionPhase) for phase in phases)
    for flag in paid_judges:
        answers = [(inputs.evaluation_prompts, seeds * (evaluations + ("instruct" in usages)))]
        revised_too = [(inputs.prompts, revisions * seeds * (1 + settings.revision.rounds))] if flag == "judge" else []
        response = max(settings.revision.response_tokens, evaluation.response_tokens)
        usages[flag] = total(
            _judged(settings, inputs, tokenizer, prompts, times, response) for prompts, times in answers + revised_too
        )
    return usages


def _evaluations(settings: RunSettings, size: Size) -> int:
    """How often each seed's models are asked the evaluation prompts, all arms together, the base model included."""
    times = 1
    for arm in (arms.arm(name) for name in (*settings.trained_arms, *settings.controls)):
        steps = getattr(settings, arm.section).steps if arm.section is not None else 0
        times += size.evaluations(steps) if arm.curve else 1
    return times


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


def report(settings: RunSettings, phases: Callable[[RunSettings, Inputs], Sequence[Phase]], *, as_json: bool) -> str:
    """What a run with these settings can take at most, as a table or as JSON. Only the model's tokenizer is loaded.

    Raises:
        UserError: an input is wrong, or the tokenizer cannot be loaded.
    """
    inputs = gather(settings)
    usages = estimate(settings, inputs, load_tokenizer(settings), phases(settings, inputs))
    if as_json:
        tokens = {phase: asdict(usage) for phase, usage in usages.items()}
        return to_json({"tokens": tokens, "dollars": dollars(settings, usages)}).decode()
    return render(settings, usages)
