"""Labels and the glossary, shared by the terminal, both pages and the figures."""

from collections.abc import Mapping

from cai_base.arms import ARMS, arm, named, split_pair
from cai_base.inputs.kinds import HARMFUL, HARMLESS
from cai_base.records import (
    VERDICT_PARTS,
    Answer,
    Chain,
    ComparisonsResults,
    Results,
    StyleResults,
    SuiteResults,
    Verdict,
)
from cai_base.settings.schema import LOSSES

ORGANISM = (
    "These are results of a model organism: a small model pretrained on a synthetic world in which harm is fictional. "
    "They show what the pipeline does. They are no evidence about large models."
)

WITH_WORDS = ("complied", "refused", "gibberish", "helpfulness")
"""The parts of a verdict that have words of their own; every other part is shown by its name."""


def label(name: str) -> str:
    """The label of an arm.

    Raises:
        UserError: the arm is unknown.
    """
    return arm(name).label


def pair_label(pair: str) -> str:
    """The label of a comparison of two arms, whose name in results is, for example, `cai - sft`."""
    first, second = split_pair(pair)
    return f"{label(first)} − {label(second)}"


def _described(names: tuple[str, ...]) -> str:
    return "; ".join(f"{ARMS[name].label}, {ARMS[name].about}" for name in names)


GLOSSARY: Mapping[str, str] = {
    "Base model": "A language model without instruction tuning. All training here starts from it.",
    "Arm": f"A model being compared: {_described((*named('start'), *named('trained'), *named('other')))}.",
    "Control": f"An arm that leaves out, or replaces, a part of the method: {_described(named('control'))}.",
    "Seed": "One independent replicate: its own adapter initialisation, draws and order of the data.",
    "Principle": "One critique request and one revision request of the constitution, and for feedback one comparison "
    "request.",
    "Harm found": "The share of the rounds under a principle, of all seeds and all kinds of prompt, whose critique "
    "says that the response does harm, right or wrong. It is known only for the embedded model, whose critiques can be "
    "read without a judge.",
    "Revision chain": "An original response, then a critique and a revision in every round, each under a principle "
    "drawn at random.",
    "Preference pair": "A prompt with the last revision (chosen) and the original (rejected). Chains in which the two "
    "are identical, or one is empty, truncated or off the rails, give no pair and are counted as filtered.",
    "Loss": "What training minimises: nll is the mean negative log-likelihood per trained token; "
    f"{', '.join(f'{name} ({loss.about})' if loss.about else name for name, loss in LOSSES.items())} are functions of "
    "the margin of a pair, plus nll_weight times the chosen response's mean NLL per token.",
    "Attack success rate": "The share of jailbreak prompts whose harmful request the model fulfils, at least in "
    "part. Direct and borderline prompts are separate families and do not count.",
    "Over-refusal rate": "The share of benign and benign-but-sensitive prompts that the model declines. A model that "
    "refuses everything has no attack success and is useless.",
    "Fluency": "The mean log-probability per token of an arm's answers under the base model. A value below the "
    "base's own is not in itself worse: refusals are less likely under the base model than answers.",
    "Broken language": "An answer that the base model would hardly write: as a whole, or in its opening, it is far "
    "less likely under the base model than 99 % of the base model's own answers. Or one that repeats itself without "
    "end. An arm with many such answers has failed.",
    "Blanket refusal": "Declining most harmless prompts too. It lowers attack success, but it is a failure.",
    "Verdict": "A judge's answer about a response. A response without a verdict is unscored. That does not mean it is "
    "safe.",
    "Coverage": "Scored answers out of all answers planned, including those of failed seeds. The worst case is the "
    "range of the rate if every unscored or missing answer had been the worst, or the best, possible.",
    "Margin": "In DPO, the reward of the chosen response minus that of the rejected one. A reward is "
    "beta times the change in log-probability since the start of DPO; with ipo it is per token, and with simpo it is "
    "the log-probability per token itself.",
    "Interval": "A 95 % confidence interval of a figure, over seeds and prompts as random samples. With a single "
    "seed it is over prompts only.",
    "p, Holm": "The p value belongs to the interval: at p = 0.05 an end of the interval is 0. Holm's correction is "
    "over all metrics of a comparison.",
    "p, primary": "The p value of a primary metric, with Holm's correction over the primary metrics of all "
    "comparisons. Which metrics are primary is a setting, chosen before the run.",
    "Over families": "An interval with the jailbreak families as a random sample: for families that were not tested. "
    "All other intervals are for other prompts of the same families.",
    "McNemar": "An exact test of one seed's two models on the same prompts. The sign gives the direction.",
    "No less helpful": "Non-inferiority: the interval of the difference lies above minus the margin. “Not shown” does "
    "not mean less helpful: there may be too few prompts.",
    "Pairwise helpfulness": "The judge compares an arm's answer to a benign prompt with SFT's, in both orders, and "
    "says which helps more, or neither. Preferred is the mean, with a tie as one half: 50 % means no difference. A "
    "win: the arm's answer is preferred in both orders, or in one order with a tie in the other. A loss: SFT's answer "
    "is, in the same way. All else is a tie, also two orders that contradict each other. It can distinguish answers "
    "that all have 5 of 5.",
    "Interpreter": "The model that critiques, revises and compares under the constitution; by default each seed's own "
    "SFT adapter.",
    "Feedback": "The paper's second stage: two answers of the model are compared under drawn principles, in both "
    "orders, and DPO takes the probability that one is better as a soft label.",
    "Smallest detectable difference": "The smallest true difference that a test at the 5 % level detects with power "
    "0.8, given the interval that is shown for these seeds and prompts; it is more than half its width. Where a table "
    "says “none”, such seeds and prompts detect no difference, however large it is.",
}


def failure_sentences(results: Results | SuiteResults | ComparisonsResults | StyleResults) -> list[str]:
    """The failures of the arms, a sentence each."""
    return [f"{label(one.arm)}: {one.text}" for one in getattr(results, "failures", ())]


def kind_label(item: Chain | Answer) -> str:
    """The kind of a chain's or an answer's prompt, with its family."""
    kind = item.kind or "unlabelled"
    return f"{kind}: {item.family}" if item.family else kind


def marks(
    kind: str | None, verdict: Verdict | None, unscored: str | None = None, truncated: bool = False
) -> list[tuple[str, str]]:
    """A verdict as marks, each a text and its tone: good, bad or plain."""
    if verdict is None:
        words = [(f"unscored: {unscored}" if unscored else "unscored", "plain")]
    else:
        words = _verdict_in_words(kind, verdict)
        if unscored:
            words.append((f"unscored: {unscored}", "plain"))
    return [*words, ("truncated", "plain")] if truncated else words


def _verdict_in_words(kind: str | None, verdict: Verdict) -> list[tuple[str, str]]:
    attack, harmless = kind in HARMFUL, kind in HARMLESS
    words = []
    if verdict.complied:
        words.append(("complied", "bad" if attack else "good" if harmless else "plain"))
    if verdict.refused:
        words.append(("refused", "good" if attack else "bad" if harmless else "plain"))
    if verdict.gibberish:
        words.append(("gibberish", "bad"))
    if not words and verdict.complied is not None:
        words.append(("neither complied nor refused", "plain"))
    if not attack and verdict.helpfulness is not None:
        words.append((f"helpfulness {verdict.helpfulness:g} of 5", "plain"))
    others = {name: getattr(verdict, name) for name in VERDICT_PARTS if name not in WITH_WORDS}
    return [*words, *((_part_in_words(name, value), "plain") for name, value in others.items() if value is not None)]


def _part_in_words(part: str, value: bool | float) -> str:
    name = part.replace("_", " ")
    if isinstance(value, bool):
        return name if value else f"not {name}"
    return f"{name} {value:g}"
