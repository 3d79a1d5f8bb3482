"""The cost of a run on a service that charges by the token: an upper bound, computed before the run.

A service charges for tokens trained on (forward and backward), tokens read (prompts before sampling, and
forward passes without training), and tokens sampled.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict

from cai_base import arms
from cai_base.dialogue import Dialogue
from cai_base.engines import Tokenizer, Usage
from cai_base.evaluation.fluency import fluency_cost
from cai_base.evaluation.judges import Response
from cai_base.evaluation.judges.cost import judging_cost
from cai_base.evaluation.tasks.pairwise import PairwiseTask
from cai_base.inputs import Inputs, gather
from cai_base.inputs.prompts import Prompt
from cai_base.method.phase import Interpreting, Phase, Size
from cai_base.models import load_tokenizer
from cai_base.run.findings import INTERPRETER
from cai_base.run.inference import extra_cost
from cai_base.run.preflight.critique import critique_cost
from cai_base.run.preflight.feedback import feedback_cost, known_comparisons
from cai_base.run.preflight.models import models_cost
from cai_base.run.spending.prices import Prices
from cai_base.settings.choices import JudgeChoice, Scope
from cai_base.settings.engines import PAID
from cai_base.settings.schema import Prompted, Revision, RunSettings
from cai_base.store import to_json


def run_size(seeds: int, revision: Revision, evaluate_every: int, inputs: Inputs, tokenizer: Tokenizer) -> Size:
    """The size of a run, on which the cost of its phases depends."""
    dialogue = Dialogue(inputs.few_shot, inputs.critique_examples)
    return Size(tokenizer, dialogue, seeds, inputs.prompts, revision.response_tokens, evaluate_every)


def estimate(settings: RunSettings, inputs: Inputs, tokenizer: Tokenizer, phases: Sequence[Phase]) -> dict[str, Usage]:
    """An upper bound on each phase's tokens, over all seeds: every response of maximal length, no chain filtered.

    Preflight, evaluations and judges are entries beside the phases.
    """
    size = run_size(settings.seeds, settings.revision, settings.evaluate_every, inputs, tokenizer)
    questions = [size.length(size.dialogue.question(prompt.text)) for prompt in inputs.evaluation_prompts]
    usages = {"preflight": models_cost(max(questions), settings.evaluation.response_tokens)}
    interpreted = Usage()
    checks = Usage()
    if settings.revises:
        checks += critique_cost(size.dialogue, settings.data, settings.revision, tokenizer)
    if inputs.comparison_requests:
        checks += feedback_cost(inputs, settings.feedback, known_comparisons(settings.data), tokenizer)
    (interpreted if settings.other_interpreter else usages["preflight"]).add(checks)
    for phase in phases:
        cost = phase.cost(size)
        if settings.other_interpreter and isinstance(phase, Interpreting):
            cost -= phase.interpreter_cost(size)
            interpreted += phase.interpreter_cost(size)
        if cost != Usage():
            usages[phase.name] = cost
    answers = settings.evaluation.response_tokens
    own, of_interpreter = _evaluation(
        settings.scope,
        answers,
        settings.answer_revision,
        settings.prompted,
        inputs,
        size,
        questions,
        elsewhere=not settings.judge_choices["judge"].judge.kind.compares,
    )
    if not settings.other_interpreter:
        own, of_interpreter = own + of_interpreter, Usage()
    usages["evaluation"] = own
    if interpreted + of_interpreter != Usage():
        usages[INTERPRETER] = interpreted + of_interpreter
    if arms.INSTRUCT in settings.scope.arms:
        usages[arms.INSTRUCT] = _answers(questions, answers) * settings.seeds
    judged = settings.seeds * sum(phase.judged_responses for phase in phases)
    paid = Prices.of_models(settings.models, settings.price).models
    return usages | {
        flag: _judging(choice, settings.scope, settings.revision, answers, inputs, tokenizer, judged)
        for flag, choice in settings.judge_choices.items()
        if flag in paid
    }


def _answers(questions: Sequence[int], response_tokens: int) -> Usage:
    return Usage(prefilled=sum(questions), sampled=len(questions) * response_tokens)


def _evaluation(
    scope: Scope,
    response_tokens: int,
    revision: Revision,
    prompted: Prompted,
    inputs: Inputs,
    size: Size,
    questions: Sequence[int],
    *,
    elsewhere: bool,
) -> tuple[Usage, Usage]:
    """What the answers of all arms but the instruct model take, and apart from it the revision of answers.

    Args:
        revision: of the arm that revises its answers.
        prompted: of the arm that states principles before every question.
        questions: tokens of each evaluation prompt with the few-shot prefix before it.
        elsewhere: whether answers are also measured after another prompt.
    """
    fluency = fluency_cost(questions, response_tokens, elsewhere=elsewhere)
    own = fluency * len(scope.arms)  # of every arm's answers, once, at its end
    revising = Usage()
    for arm in map(arms.arm, scope.arms):
        if arm.name == arms.INSTRUCT:
            continue
        own += _answers(questions, response_tokens) * arm.evaluations(scope.steps, scope.every)
        extra = extra_cost(arm, revision, prompted, inputs, size)
        if arm.inference == "revision":
            revising += extra
        else:
            own += extra
    return own * size.seeds, revising * size.seeds


def _judging(
    judge: JudgeChoice,
    scope: Scope,
    revision: Revision,
    response_tokens: int,
    inputs: Inputs,
    tokenizer: Tokenizer,
    of_method: int,
) -> Usage:
    """What a judge reads and writes.

    Args:
        of_method: how many responses to each of the method's prompts are judged; by the first judge only.
    """

    def cost(responses: Iterable[Response], longest: int) -> Usage:
        return judging_cost(inputs.rubrics, responses, tokenizer, longest, judge.sampling.max_tokens) * judge.votes

    longest = max(revision.response_tokens, response_tokens)
    usage = cost(_blank(inputs.evaluation_prompts), longest) * (scope.evaluations * len(scope.seeds))
    if judge.flag != "judge":
        return usage
    usage += cost(_blank(inputs.prompts), longest) * of_method
    if inputs.labels is not None:
        usage += cost(_blank([one.prompt for one in inputs.labels.answers]), longest)
    if judge.judge.kind.compares:
        task = PairwiseTask.of(scope.arms, scope.seeds, inputs.evaluation_prompts)
        usage += cost(task.blank, response_tokens) * task.times
    return usage


def _blank(prompts: Iterable[Prompt]) -> list[Response]:
    """What a judge is asked about these prompts, before there are responses."""
    return [Response.to(prompt, "") for prompt in prompts]


def render(usages: Mapping[str, Usage], prices: Prices) -> str:
    """The estimate as a table, with assumptions and prices."""
    money = {}
    for work, usage in usages.items():
        price = prices.of_work(work)
        money[work] = None if price is None else price.of(usage)
    money["all"] = prices.dollars(usages)
    lines = [f"{'phase':<20}{'read':>15}{'sampled':>15}{'trained on':>15}{'dollars':>12}"]
    for name, usage in {**usages, "all": sum(usages.values(), Usage())}.items():
        costs = "-" if money[name] is None else f"{money[name]:,.2f}"
        lines.append(f"{name:<20}{usage.prefilled:>15,}{usage.sampled:>15,}{usage.trained:>15,}{costs:>12}")
    lines.append("")
    lines.append("An upper bound: every response has the maximal length, and no chain is filtered.")
    if not prices.models:
        lines.append(f"This run uses no paid service; for its price on one, add {PAID} --model MODEL.")
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
