"""Words that the terminal, both pages and the figures share."""

from collections.abc import Mapping

from cai_base.arms import ARMS, arm, named, split_pair
from cai_base.inputs.kinds import HARMFUL, HARMLESS
from cai_base.records import Answer, Chain, ComparisonsResults, Results, StyleResults, SuiteResults, Verdict
from cai_base.settings.schema import LOSSES

ORGANISM = (
    "These are results of a model organism: a small model pretrained on a synthetic world in which harm is fictional. "
    "They show what the pipeline does, and are no evidence about large models."
)


def label(name: str) -> str:
    """What an arm is called.

    Raises:
        UserError: there is no such arm.
    """
    return arm(name).label


def pair_label(pair: str) -> str:
    """What a comparison of two arms is called; in results its name is such as `cai - sft`."""
    first, second = split_pair(pair)
    return f"{label(first)} − {label(second)}"


def _described(names: tuple[str, ...]) -> str:
    return "; ".join(f"{ARMS[name].label}, {ARMS[name].about}" for name in names)


GLOSSARY: Mapping[str, str] = {
    "Base model": "A language model without instruction tuning: the start of everything here.",
    "Arm": f"A model being compared: {_described((*named('start'), *named('trained'), *named('other')))}.",
    "Control": f"An arm that leaves out, or replaces, a part of the method: {_described(named('control'))}.",
    "Seed": "One independent replicate: its own adapter initialisation, draws and order of the data.",
    "Principle": "One critique request and one revision request of the constitution, and for feedback one comparison "
    "request.",
    "Revision chain": "An original response, then a critique and a revision in every round, each under a principle "
    "drawn at random.",
    "Preference pair": "A prompt with the last revision (chosen) and the original (rejected). Chains in which the two "
    "are identical, or one is empty, truncated or off the rails, give no pair and are counted as filtered.",
    "Loss": "What training minimises: nll is the mean negative log-likelihood per trained token; "
    f"{', '.join(f'{name} ({loss.about})' if loss.about else name for name, loss in LOSSES.items())} are functions of "
    "the margin of a pair, plus nll_weight times the chosen response's mean NLL per token.",
    "Attack success rate": "The share of jailbreak prompts with whose harmful request the model complies, at least in "
    "part. Direct and borderline prompts are families of their own and not part of it.",
    "Over-refusal rate": "The share of benign and benign-but-sensitive prompts that the model declines. A model that "
    "refuses everything has no attack success, and is of no use.",
    "Fluency": "The mean log-probability per token of an arm's answers under the base model. A lower one than the "
    "base's own is not yet worse: refusals are less likely to the base model than answers.",
    "Broken language": "An answer that as a whole, or in its opening, is far less likely to the base model than nearly "
    "all of the base's own, or that repeats itself without end. An arm with many of them has failed.",
    "Blanket refusal": "Declining most harmless prompts too. It brings attack success down and is a failure.",
    "Verdict": "A judge's answer about a response. Where there is none the response is unscored, which is not the same "
    "as safe.",
    "Coverage": "Scored answers out of all that were asked for, those of failed seeds included. The worst case is the "
    "rate if every unscored or missing answer had been the worst, or the best, it could be.",
    "Margin": "In DPO, by how much the reward of the chosen response exceeds that of the rejected one. A reward is "
    "beta times the log-probability gained since the start of DPO; with ipo it is per token, and with simpo it is the "
    "log-probability per token itself.",
    "Interval": "Where a figure would lie with other seeds and other prompts, 95 times of 100 or more. Of a single "
    "seed it is over prompts alone.",
    "p, Holm": "The p value goes with the interval: at 0.05 the interval ends at no difference. Holm's correction is "
    "for looking at all metrics of a comparison at once.",
    "p, primary": "The p value of a primary metric, with Holm's correction over the primary metrics of all "
    "comparisons. Which metrics are primary is a setting, chosen before the run.",
    "Over families": "The families of jailbreaks as a sample: what to expect against families that were not asked. All "
    "other intervals are for other prompts of these families.",
    "McNemar": "An exact test of one seed's two models on the same prompts. The sign says which way the seed went.",
    "No less helpful": "The interval of the difference lies above minus the margin. Not shown is not the same as less "
    "helpful: there may be too few prompts to tell.",
    "Pairwise helpfulness": "The judge sees an arm's answer to a benign prompt beside SFT's, in both orders, and says "
    "which helps more, or neither. Preferred is the mean: 100 % always, 50 % no difference, a tie one half. It can "
    "tell answers apart that all have 5 of 5.",
    "Interpreter": "The model that critiques, revises and compares under the constitution; by default each seed's own "
    "SFT adapter.",
    "Feedback": "The paper's second stage: two answers of the model are compared under drawn principles, in both "
    "orders, and DPO takes the probability that one is better as a soft label.",
    "Smallest detectable difference": "The least true difference that a test at the 5 % level would find in four of "
    "five such runs, given how much these seeds and prompts vary.",
}


def failure_sentences(results: Results | SuiteResults | ComparisonsResults | StyleResults) -> list[str]:
    """What failed, arm by arm, a sentence each: what a reader must know first."""
    return [f"{label(one.arm)}: {one.text}" for one in getattr(results, "failures", ())]


def kind_label(item: Chain | Answer) -> str:
    """What kind of prompt a chain or an answer is about, for the reader."""
    kind = item.kind or "unlabelled"
    return f"{kind}: {item.family}" if item.family else kind


def marks(
    kind: str | None, verdict: Verdict | None, unscored: str | None = None, truncated: bool = False
) -> list[tuple[str, str]]:
    """A verdict in words, each with its tone: good, bad or plain."""
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
    return words
