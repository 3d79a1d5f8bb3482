"""The cost of a run on a service that charges by the token: an upper bound, computed before the run.

A service charges for tokens trained on (forward and backward), tokens read (prompts before sampling, and
forward passes without training), and tokens sampled.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict

from cai_base import arms
from cai_base.dialogue import Dialogue, prompt_tokens
from cai_base.engines import Tokenizer, Usage
from cai_base.evaluation.fluency import OPENING
from cai_base.evaluation.judges import PAIRWISE
from cai_base.evaluation.judges.question import question
from cai_base.inputs import Inputs, gather
from cai_base.inputs.kinds import PROMPT_KINDS
from cai_base.inputs.prompts import Prompt
from cai_base.inputs.rubrics import Rubric
from cai_base.method.comparing import ORDERS
from cai_base.method.phase import Interpreting, Phase, Size
from cai_base.models import load_tokenizer
from cai_base.run.evaluation.pairwise import compared_arms, compared_prompts
from cai_base.run.inference import extra_cost
from cai_base.run.preflight.critique import critique_cost
from cai_base.run.preflight.feedback import feedback_cost, known_comparisons
from cai_base.run.preflight.models import PILOT, SHORT
from cai_base.run.spending.prices import Prices
from cai_base.settings.schema import Revision, RunSettings
from cai_base.store import to_json

BARE = 8 * 2 * SHORT
"""Tokens of preflight's eight bare questions, and of their answers."""


def run_size(seeds: int, revision: Revision, evaluate_every: int, inputs: Inputs, tokenizer: Tokenizer) -> Size:
    """The size of a run, on which the cost of its phases depends."""
    dialogue = Dialogue(inputs.few_shot, inputs.critique_examples)
    return Size(tokenizer, dialogue, seeds, inputs.prompts, revision.response_tokens, evaluate_every)


def estimate(settings: RunSettings, inputs: Inputs, tokenizer: Tokenizer, phases: Sequence[Phase]) -> dict[str, Usage]:
    """An upper bound on each phase's tokens, over all seeds: every response of maximal length, no chain filtered.

    Preflight, evaluations and judges are entries beside the phases.
    """
    evaluation, seeds = settings.evaluation, settings.seeds
    size = run_size(seeds, settings.revision, settings.evaluate_every, inputs, tokenizer)
    questions = [size.length(size.dialogue.question(prompt.text)) for prompt in inputs.evaluation_prompts]
    usages = {
        "preflight": Usage(
            prefilled=BARE + (PILOT + 3) * max(questions), sampled=PILOT * evaluation.response_tokens + BARE + 3 * SHORT
        )
    }
    interpreted = Usage()
    checked = critique_cost(size.dialogue, settings.data, settings.revision, tokenizer)
    if inputs.comparison_requests:
        checked.add(feedback_cost(inputs, settings.feedback, known_comparisons(settings.data), tokenizer))
    (interpreted if settings.other_interpreter else usages["preflight"]).add(checked)
    for phase in phases:
        cost = phase.cost(size)
        if settings.other_interpreter and isinstance(phase, Interpreting):
            of_interpreter = phase.interpreter_cost(size)
            cost, interpreted = _difference(cost, of_interpreter), total([interpreted, of_interpreter])
        if cost != Usage():
            usages[phase.name] = cost
    evaluations = _evaluations(settings.training_steps, settings.controls, size)
    fluency = 2 * sum(questions) + len(questions) * (evaluation.response_tokens + OPENING)  # the answer, its opening
    usages["evaluation"] = Usage(
        # At the end, the base model computes the log-probability of every answer and of its opening.
        prefilled=seeds * (evaluations * sum(questions) + len(settings.evaluated_arms) * fluency),
        sampled=seeds * evaluations * len(questions) * evaluation.response_tokens,
    )
    for arm in map(arms.arm, settings.evaluated_arms):
        extra = times(extra_cost(arm, settings.answer_revision, inputs, size), seeds)
        (interpreted if settings.other_interpreter and arm.inference == "revision" else usages["evaluation"]).add(extra)
    if interpreted != Usage():
        usages["interpreter"] = interpreted
    if arms.INSTRUCT in settings.evaluated_arms:
        sampled = seeds * len(questions) * evaluation.response_tokens
        usages[arms.INSTRUCT] = Usage(prefilled=seeds * sum(questions), sampled=sampled)
    paid_judges = [flag for flag in settings.judges if flag in Prices.of_models(settings.models, settings.price).models]
    judged = sum(phase.judged_responses for phase in phases)
    votes, longest_reply = settings.votes, settings.judging.max_tokens
    for flag in paid_judges:
        answers = [(inputs.evaluation_prompts, seeds * (evaluations + (arms.INSTRUCT in usages)))]
        responses = [(inputs.prompts, judged * seeds)] if flag == "judge" else []
        if flag == "judge" and inputs.labels is not None:
            responses.append((tuple(one.prompt for one in inputs.labels.answers), 1))
        response = max(settings.revision.response_tokens, evaluation.response_tokens)
        usages[flag] = total(
            _judging(inputs.rubrics, tokenizer, prompts, votes * times, response, longest_reply)
            for prompts, times in answers + responses
        )
        if flag == "judge" and settings.judges[flag].kind.compares:
            compared = votes * seeds * len(ORDERS) * len(compared_arms(settings.evaluated_arms))
            usages[flag].add(_comparing(inputs, tokenizer, compared, evaluation.response_tokens, longest_reply))
    return usages


def _evaluations(steps: Mapping[str, int], controls: Sequence[str], size: Size) -> int:
    """How often each seed answers the evaluation prompts, over all arms and the base model.

    Args:
        steps: the training steps of each trained arm, including controls.
        controls: all controls, including untrained ones.
    """
    times = 1
    for arm in map(arms.arm, dict.fromkeys([*steps, *controls])):
        times += size.evaluations(steps[arm.name]) if arm.curve else 1
    return times


def _judging(
    rubrics: Sequence[Rubric], tokenizer: Tokenizer, prompts: Sequence[Prompt], times: int, response: int, reply: int
) -> Usage:
    """The tokens for judging `times` responses to each prompt, with the rubrics of the prompt's kind.

    Args:
        response: tokens of the longest response.
        reply: tokens of the judge's longest reply.
    """
    by_task = {rubric.task: rubric for rubric in rubrics}
    requests = [
        question(by_task[task], {"prompt": prompt.text, "response": ""})
        for prompt in prompts
        if prompt.kind is not None
        for task in PROMPT_KINDS[prompt.kind].rubrics
    ]
    read = sum(len(prompt_tokens(tokenizer, text)) + response for text in requests)
    return Usage(prefilled=times * read, sampled=times * len(requests) * reply)


def _comparing(inputs: Inputs, tokenizer: Tokenizer, times: int, response: int, reply: int) -> Usage:
    """The tokens for comparing two responses to each benign evaluation prompt so often."""
    (rubric,) = (one for one in inputs.rubrics if one.task == PAIRWISE)
    texts = [
        question(rubric, {"prompt": prompt.text, "first response": "", "second response": ""})
        for prompt in compared_prompts(inputs)
    ]
    read = sum(len(prompt_tokens(tokenizer, text)) + 2 * response for text in texts)
    return Usage(prefilled=times * read, sampled=times * len(texts) * reply)


def times(usage: Usage, number: int) -> Usage:
    """The usage multiplied by a number."""
    return Usage(number * usage.trained, number * usage.prefilled, number * usage.sampled)


def _difference(usage: Usage, part: Usage) -> Usage:
    return total([usage, times(part, -1)])


def total(usages: Iterable[Usage]) -> Usage:
    """The sum of usages."""
    result = Usage()
    for usage in usages:
        result.add(usage)
    return result


def render(usages: Mapping[str, Usage], prices: Prices) -> str:
    """The estimate as a table, with assumptions and prices."""
    money = {}
    for work, usage in usages.items():
        price = prices.of_work(work)
        money[work] = None if price is None else price.of(usage)
    money["all"] = prices.dollars(usages)
    lines = [f"{'phase':<20}{'read':>15}{'sampled':>15}{'trained on':>15}{'dollars':>12}"]
    for name, usage in {**usages, "all": total(usages.values())}.items():
        costs = "-" if money[name] is None else f"{money[name]:,.2f}"
        lines.append(f"{name:<20}{usage.prefilled:>15,}{usage.sampled:>15,}{usage.trained:>15,}{costs:>12}")
    lines.append("")
    lines.append("An upper bound: every response has the maximal length, and no chain is filtered.")
    if not prices.models:
        lines.append("This run uses no paid service; for its price on one, add --engine tinker --model MODEL.")
    for model in dict.fromkeys(prices.models.values() or [prices.base]):
        price = prices.of_model(model)
        if price is None and prices.models:
            lines.append(
                f"No price is known for {model}; give --price READ,SAMPLED,TRAINED in dollars per million tokens."
            )
        elif price is not None:
            rates = f"{price.prefill:g} read, {price.sample:g} sampled, {price.train:g} trained on"
            lines.append(f"Dollars per million tokens of {model}: {rates} ({price.source}).")
    return "\n".join(lines) + "\n"


def report(settings: RunSettings, phases: Callable[[RunSettings, Inputs], Sequence[Phase]], *, as_json: bool) -> str:
    """An upper bound on the cost of a run, as a table or as JSON. Loads only the model's tokenizer.

    Raises:
        UserError: an input is wrong, or the tokenizer cannot be loaded.
    """
    inputs, prices = gather(settings), Prices.of_models(settings.models, settings.price)
    usages = estimate(settings, inputs, load_tokenizer(settings.base_model), phases(settings, inputs))
    if as_json:
        tokens = {phase: asdict(usage) for phase, usage in usages.items()}
        return to_json({"tokens": tokens, "dollars": prices.dollars(usages)}).decode()
    return render(usages, prices)
