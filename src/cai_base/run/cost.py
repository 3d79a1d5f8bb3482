"""The cost of a run on a service that is paid by the token: prices, and an upper bound before the run.

A service charges for three things: tokens trained on (forward and backward), tokens read (prompts before sampling, and
forward passes alone), and tokens sampled.
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
"""Tokens of preflight's eight bare questions and of the answers to them."""


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens, and the source of these prices."""

    prefill: float
    sample: float
    train: float
    source: str

    def of(self, usage: Usage) -> float:
        """What these tokens cost, in dollars."""
        return (usage.prefilled * self.prefill + usage.sampled * self.sample + usage.trained * self.train) / 1e6


FREE = Price(0.0, 0.0, 0.0, "no paid service")


def paid_models(settings: RunSettings) -> dict[str, str]:
    """The models of paid services, by their work: `method`, `instruct`, or the flag that names a judge."""
    models = {"method": settings.model} if engine_kind(settings.engine).paid else {}
    if models and settings.instruct is not None:
        models["instruct"] = settings.instruct
    return models | {flag: judge.name for flag, judge in settings.judges.items() if judge.kind == "tinker"}


def check_limit(settings: RunSettings) -> None:
    """Raise UserError if the run has a cost limit, and one of its models has no known price."""
    for model in paid_models(settings).values():
        if settings.max_cost is not None and price(settings, model) is None:
            raise UserError(f"--max-cost: no price is known for {model}; give --price, see cai-base cost --help")


def price(settings: RunSettings, model: str) -> Price | None:
    """The price of a model: that of `--price`, which is for all models, else of the packaged table; None if unknown.

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
    """The size of a run, which the cost of its phases depends on."""
    return Size(
        tokenizer,
        Dialogue(inputs.few_shot, inputs.critique_examples),
        settings.seeds,
        inputs.prompts,
        settings.revision.response_tokens,
        settings.evaluate_every,
    )


def estimate(settings: RunSettings, inputs: Inputs, tokenizer: Tokenizer, phases: Sequence[Phase]) -> dict[str, Usage]:
    """An upper bound on each phase's tokens, for all seeds: responses of maximal length, no chain filtered.

    The costs of preflight, evaluations and judges are added to those that the phases give.
    """
    size, evaluation, seeds = run_size(settings, inputs, tokenizer), settings.evaluation, settings.seeds
    questions = [size.length(size.dialogue.question(prompt.text)) for prompt in inputs.evaluation_prompts]
    usages = {
        "preflight": Usage(
            prefilled=BARE + (PILOT + 3) * max(questions), sampled=PILOT * evaluation.response_tokens + BARE + 3 * SHORT
        )
    }
    for phase in phases:
        cost = phase.cost(size)
        if cost != Usage():
            usages[phase.name] = cost
    evaluations = _evaluations(settings, size)
    fluency = 2 * sum(questions) + len(questions) * (evaluation.response_tokens + OPENING)  # the answer, its opening
    usages["evaluation"] = Usage(
        # At the end, the base model computes the log-probability of every answer and of its opening.
        prefilled=seeds * (evaluations * sum(questions) + len(settings.evaluated_arms) * fluency),
        sampled=seeds * evaluations * len(questions) * evaluation.response_tokens,
    )
    if "instruct" in settings.evaluated_arms:
        sampled = seeds * len(questions) * evaluation.response_tokens
        usages["instruct"] = Usage(prefilled=seeds * sum(questions), sampled=sampled)
    paid_judges = [flag for flag in settings.judges if flag in paid_models(settings)]
    revisions = sum(isinstance(phase, RevisionPhase) for phase in phases)
    for flag in paid_judges:
        answers = [(inputs.evaluation_prompts, seeds * (evaluations + ("instruct" in usages)))]
        responses = [(inputs.prompts, revisions * seeds * (1 + settings.revision.rounds))] if flag == "judge" else []
        response = max(settings.revision.response_tokens, evaluation.response_tokens)
        usages[flag] = total(
            _judging(settings, inputs, tokenizer, prompts, times, response) for prompts, times in answers + responses
        )
    return usages


def _evaluations(settings: RunSettings, size: Size) -> int:
    """How often each seed answers the evaluation prompts, over all arms and the base model."""
    times = 1
    for arm in (arms.arm(name) for name in (*settings.trained_arms, *settings.controls)):
        steps = getattr(settings, arm.section).steps if arm.section is not None else 0
        times += size.evaluations(steps) if arm.curve else 1
    return times


def _judging(
    settings: RunSettings, inputs: Inputs, tokenizer: Tokenizer, prompts: Sequence[Prompt], times: int, response: int
) -> Usage:
    """The tokens for judging `times` responses to each of these prompts, by the rubrics of its kind."""
    rubrics = {rubric.task: rubric for rubric in inputs.rubrics}
    requests = [
        question(rubrics[task], {"prompt": prompt.text, "response": ""})
        for prompt in prompts
        if prompt.kind is not None
        for task in KINDS[prompt.kind].rubrics
    ]
    read = sum(len(prompt_tokens(tokenizer, text)) + response for text in requests)
    votes = times * settings.votes
    return Usage(prefilled=votes * read, sampled=votes * len(requests) * settings.judging.max_tokens)


def dollars(settings: RunSettings, usages: Mapping[str, Usage]) -> float | None:
    """The cost of all phases together; None if a price is not known."""
    total_cost = 0.0
    for work, phase_price in _prices(settings, usages).items():
        if phase_price is None:
            return None
        total_cost += phase_price.of(usages[work])
    return round(total_cost, 6)


def _prices(settings: RunSettings, usages: Mapping[str, Usage]) -> dict[str, Price | None]:
    """The price of each phase; for a run without a paid service, the price that its model has on one."""
    models = paid_models(settings) or {"method": settings.model}
    owners = {work: work if work in ("instruct", *settings.judges) else "method" for work in usages}
    return {work: price(settings, models[own]) if own in models else FREE for work, own in owners.items()}


def total(usages: Iterable[Usage]) -> Usage:
    """The sum of usages."""
    result = Usage()
    for usage in usages:
        result.add(usage)
    return result


def render(settings: RunSettings, usages: Mapping[str, Usage]) -> str:
    """The estimate as a table, with its assumptions and the prices."""
    prices = _prices(settings, usages)
    costs = {phase: None if rate is None else rate.of(usages[phase]) for phase, rate in prices.items()}
    costs["all"] = dollars(settings, usages)
    lines = [f"{'phase':<12}{'read':>15}{'sampled':>15}{'trained on':>15}{'dollars':>12}"]
    for name, usage in {**usages, "all": total(usages.values())}.items():
        cost = "-" if costs[name] is None else f"{costs[name]:,.2f}"
        lines.append(f"{name:<12}{usage.prefilled:>15,}{usage.sampled:>15,}{usage.trained:>15,}{cost:>12}")
    lines.append("")
    lines.append("At most: every response is counted as long as it may be, and no chain as filtered out.")
    paid = paid_models(settings)
    if not paid:
        lines.append("This run pays no service; for the price of the same on one, add --engine tinker --model MODEL.")
    for model in dict.fromkeys(paid.values() or [settings.model]):
        model_price = price(settings, model)
        if model_price is None and paid:
            lines.append(f"No price is known for {model}; give --price READ,SAMPLED,TRAINED, dollars a million tokens.")
        elif model_price is not None:
            rates = f"{model_price.prefill:g} read, {model_price.sample:g} sampled, {model_price.train:g} trained on"
            lines.append(f"Dollars per million tokens of {model}: {rates} ({model_price.source}).")
    return "\n".join(lines) + "\n"


def report(settings: RunSettings, phases: Callable[[RunSettings, Inputs], Sequence[Phase]], *, as_json: bool) -> str:
    """An upper bound on the cost of a run, as a table or as JSON. Only the model's tokenizer is loaded.

    Raises:
        UserError: an input is wrong, or the tokenizer cannot be loaded.
    """
    inputs = gather(settings)
    usages = estimate(settings, inputs, load_tokenizer(settings), phases(settings, inputs))
    if as_json:
        tokens = {phase: asdict(usage) for phase, usage in usages.items()}
        return to_json({"tokens": tokens, "dollars": dollars(settings, usages)}).decode()
    return render(settings, usages)
