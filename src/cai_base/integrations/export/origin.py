"""What trained an arm, and what its preference pairs were made from, in sentences for cards.

They follow the arm's own phases: an arm that starts from SFT on written answers has those first, and the base model has
none.
"""

from collections.abc import Mapping

from cai_base.arms import ARMS, BASE, SFT, Arm
from cai_base.records import ControlUsed, Results
from cai_base.report.numbers import percent
from cai_base.report.page import escaped
from cai_base.settings.schema import BASE as BASE_INTERPRETER
from cai_base.settings.schema import RunSettings, Training
from cai_base.text import counted


def training_of(arm: Arm) -> list[Arm]:
    """The arms whose training is in this arm's weights, in order; none for the base model."""
    trained = ARMS[arm.adapters_of or arm.name]
    if trained.section is None:
        return []
    return [*([] if trained.starts_from == BASE else training_of(ARMS[trained.starts_from])), trained]


def tags(arm: Arm) -> list[str]:
    """The hub's tags for the arm's training."""
    stages = training_of(arm)
    method = [] if not any(map(_interpreted, stages)) else ["constitutional-ai"]
    return [*method, *(["dpo"] if any(one.section == "dpo" and not one.chosen_only for one in stages) else [])]


def training_sentences(results: Results, settings: RunSettings, arm: Arm) -> list[str]:
    """What trained the arm, a sentence for each stage."""
    stages = training_of(arm)
    if not stages:
        return ["None: it is the base model, as it was before the run."]
    sentences = [sentence for one in stages for sentence in _stage(results, settings, one)]
    return [*sentences, f"LoRA of rank {settings.lora.rank}, alpha {settings.lora.alpha:g}."]


def aid_sentences(results: Results, settings: RunSettings, arm: Arm, worked: int) -> list[str]:
    """What else helped to make the arm's pairs or entered its loss, a sentence each; none for SFT and the base model.

    Args:
        worked: the number of worked critiques of the run.
    """
    last = next((one for one in training_of(arm)[::-1] if one.section not in (None, SFT)), None)
    if last is None:
        return []
    control, revision = _control(results, last), settings.revision
    share = revision.refusal_prefill if control.refusal_prefill is None else control.refusal_prefill
    by_chains = last.source in (None, "chains")
    what = "original" if by_chains else "answer in the pairs"
    sentences = [
        f"Refusal prefill: each {what} began with the opening of a refusal with a chance of {percent(share)}, whatever "
        f"the prompt (`revision.refusal-prefill` {share:g}{_prefilled(results, last) if by_chains else ''})."
        if share
        else f"Refusal prefill: no {what} began with an opening that was given."
    ]
    count = worked if control.worked_critiques is None else control.worked_critiques
    if by_chains:
        sentences.append(
            f"Worked examples: {counted(count, 'worked critique')}, with their revisions, before every critique and "
            "revision request."
            if count
            else "Worked examples: none before a critique or revision request."
        )
    loss = results.losses[last.name].settings
    if "nll_weight" in loss:
        sentences.append(
            f"NLL term: the loss has the chosen response's mean NLL per token with the weight {loss['nll_weight']:g}."
        )
    if not (share or (by_chains and count) or loss.get("nll_weight")):
        return sentences
    return [
        *sentences,
        "Such an aid can change the figures without any principle; only a control without it, in the same run, can "
        "tell by how much.",
    ]


def _prefilled(results: Results, arm: Arm) -> str:
    revision = _control(results, arm).revision or results.revision
    return f"; {revision.prefilled.chains} of {counted(revision.chains, 'chain')}"


def _optimizer(settings: Training, of: str, loss: Mapping[str, float]) -> str:
    """Such as `300 steps of 4 pairs, peak learning rate 7e-05, cosine schedule, beta 0.1, nll-weight 1`."""
    batch = f"{counted(settings.steps, 'step')} of {counted(settings.batch_size, of)}"
    values = (f"{name.replace('_', '-')} {value:g}" for name, value in loss.items())
    return ", ".join(
        (batch, f"peak learning rate {settings.learning_rate:g}", f"{settings.schedule} schedule", *values)
    )


def _stage(results: Results, settings: RunSettings, arm: Arm) -> list[str]:
    assert arm.section is not None
    training, loss = settings.training(arm.section), results.losses[arm.name]
    if arm.section == "sft":
        replaced = f", of which {settings.sft.refusals} were replaced by refusals" if arm.replaces else ""
        return [f"SFT on a few written answers{replaced} ({_optimizer(training, 'example', {})})."]
    source, count = pairs_origin(results, settings, arm), counts(results, arm)
    how = {
        "dpo": "the NLL of the chosen responses alone" if arm.chosen_only else f"DPO, with the loss {loss.name}",
        "sl_cai": "SFT on the last revisions",
    }[arm.section]
    batches = _optimizer(training, "revision" if arm.section == "sl_cai" else "pair", loss.settings)
    return [source, *([count] if count else []), f"Training on them: {how} ({batches})."]


def pairs_origin(results: Results, settings: RunSettings, arm: Arm) -> str:
    """What the pairs that the arm is trained on were made from, and which response is `chosen`."""
    answered = f"The model of {ARMS[arm.starts_from].label} answered each prompt"
    if arm.source == "responses":
        return f"{answered} twice; `chosen` is one of the two answers by the toss of a coin, `rejected` the other."
    who = _interpreter(results, "it")
    if arm.source == "comparisons":
        return (
            f"{answered} twice, and {who} compared the two answers under {settings.feedback.principles} principles "
            f"of the constitution {_constitution(results)}, drawn for each prompt; `chosen` is the answer that is more "
            "probably the better one, `rejected` the other."
        )
    rounds = settings.revision.rounds
    under = _control(results, arm).constitution
    named = f"the constitution {_constitution(results)}" if under is None else f"{escaped(under)}, of the control"
    before = (
        f"{answered}, and {who} criticised and revised the answer under {named}, in {rounds} "
        f"round{'' if rounds == 1 else 's'}; "
    )
    if arm.pairs == "shuffled":
        return (
            f"{before}a coin then decided for each pair: with probability 1/2 `chosen` is the last revision and "
            "`rejected` the original, else they are swapped."
        )
    return f"{before}`chosen` is the last revision, `rejected` the original."


def counts(results: Results, arm: Arm) -> str:
    """How many chains or pairs of answers gave preference pairs; empty where the results do not say."""
    seeds = f"over {counted(len(results.seeds), 'seed')}"
    if arm.source == "comparisons" and results.feedback is not None:
        feedback = results.feedback[arm.name]
        pairs = counted(feedback.pairs, "preference pair")
        return f"{counted(feedback.responses, 'pair')} of answers gave {pairs} {seeds}."
    revision = _control(results, arm).revision or results.revision
    return (
        ""
        if arm.source == "responses"
        else f"{counted(revision.chains, 'revision chain')} gave {counted(revision.pairs, 'pair')} {seeds}."
    )


def lost_by_reason(results: Results, arm: Arm) -> Mapping[str, int]:
    """How many chains or pairs of answers gave no preference pair, by reason; empty where the results do not say."""
    if arm.source == "responses":
        return {}
    if arm.source == "comparisons":
        return {} if results.feedback is None else results.feedback[arm.name].filtered
    return (_control(results, arm).revision or results.revision).filtered


def others_sentence(results: Results, arm: Arm) -> str:
    """Whether another model took part in the arm's training."""
    if not training_of(arm):
        return "It was not trained."
    if results.interpreter in (None, BASE_INTERPRETER) or not any(map(_interpreted, training_of(arm))):
        return "No other model took part in training."
    return (
        f"Another model, {escaped(results.interpreter or '')}, took part in training: it read the constitution "
        "(`--interpreter`)."
    )


def _interpreted(arm: Arm) -> bool:
    """Whether the arm is trained on what an interpreter revised or compared."""
    return arm.section not in (None, SFT) and arm.source != "responses"


def _interpreter(results: Results, itself: str) -> str:
    """Who critiques, revises and compares."""
    if results.interpreter is None:
        return itself
    if results.interpreter == BASE_INTERPRETER:
        return "the base model"
    return f"another model, {escaped(results.interpreter)},"


def _control(results: Results, arm: Arm) -> ControlUsed:
    return results.controls.get(arm.name) or ControlUsed()


def _constitution(results: Results) -> str:
    used = results.constitution
    return f"{escaped(used.name)} ({used.principles} principles, SHA-256 {used.sha256[:12]})"
