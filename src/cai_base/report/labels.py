"""Names and number formats that the terminal, both pages and the figures share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cai_base import arms
from cai_base.errors import UserError
from cai_base.evaluation.metrics import METRICS, Scale
from cai_base.store import Record

ARMS: Mapping[str, str] = {name: arm.label for name, arm in (*arms.ARMS.items(), (arms.MODEL.name, arms.MODEL))}

ORGANISM = (
    "These are results of a model organism: a small model pretrained on a synthetic world in which harm is fictional. "
    "They show what the pipeline does, and are no evidence about large models."
)


@dataclass(frozen=True, slots=True)
class Measure:
    """How a metric is named and written.

    Attributes:
        about: what it is taken over, and which way is better.
    """

    label: str
    scale: Scale
    about: str

    @property
    def unit(self) -> str:
        """The unit of every number in the metric's row."""
        return {"rate": "%", "score": "1–5", "share": "0–1", "count": "tokens", "nats": "nats a token"}[self.scale]

    def number(self, value: float, signed: bool = False) -> str:
        """The value in the metric's unit, without the unit."""
        scaled, digits = (100 * value, 1) if self.scale == "rate" else (value, 1 if self.scale == "count" else 2)
        text = f"{scaled:+.{digits}f}" if signed else f"{scaled:.{digits}f}"
        if not text.strip("+-0."):  # a zero has no sign
            text = text.lstrip("+-")
        return text.replace("-", "−")

    def interval(self, bounds: Sequence[float] | None, signed: bool = False) -> str:
        """Both ends of an interval; nothing where there is none, or where it has no width to speak of."""
        low, high = (self.number(bound, signed) for bound in bounds or (0.0, 0.0))
        return f"[{low}, {high}]" if low != high else ""


MEASURES: Mapping[str, Measure] = {
    name: Measure(metric.label, metric.scale, metric.about) for name, metric in METRICS.items()
}

GLOSSARY: Mapping[str, str] = {
    "Base model": "A language model without instruction tuning: the start of everything here.",
    "Arm": "A model being compared: the base model; SFT-only, fine-tuned on a few human-written answers; full CAI, "
    "which goes on from there with DPO on its own revisions; SL-CAI, which goes on with fine-tuning on the revisions; "
    "Instruct, a model that was tuned elsewhere to follow instructions, asked in its own chat layout.",
    "Control": "An arm that must show nothing of what the constitution does: shuffled, DPO with chosen and rejected "
    "swapped at random; placebo, the whole method under principles about something else; SFT again, the SFT model "
    "drawn anew, whose difference from itself must be none.",
    "Seed": "One independent replicate: its own adapter initialisation, draws and order of the data.",
    "Principle": "One critique request and one revision request of the constitution.",
    "Revision chain": "An original response, then a critique and a revision in every round, each under a principle "
    "drawn at random.",
    "Preference pair": "A prompt with the last revision (chosen) and the original (rejected). Chains in which the two "
    "are identical, or one is empty, truncated or off the rails, give no pair and are counted as filtered.",
    "Attack success rate": "The share of jailbreak prompts with whose harmful request the model complies, at least in "
    "part. Direct and borderline prompts are families of their own and not part of it.",
    "Over-refusal rate": "The share of benign and benign-but-sensitive prompts that the model declines. A model that "
    "refuses everything has no attack success, and is of no use.",
    "Fluency": "The mean log-probability a token of an arm's answers under the base model. Other than the base's own "
    "is not yet worse: refusals are less likely to it than answers.",
    "Broken language": "An answer that as a whole, or in its opening, is far less likely to the base model than nearly "
    "all of the base's own, or that repeats itself without end. An arm with many of them has failed.",
    "Blanket refusal": "Declining most harmless prompts too. It brings attack success down and is a failure.",
    "Verdict": "A judge's answer about a response. Where there is none the response is unscored, which is not the same "
    "as safe.",
    "Coverage": "Scored answers out of all that were asked for, those of failed seeds included. The worst case is the "
    "rate if every unscored or missing answer had been the worst, or the best, it could be.",
    "Margin": "In DPO, by how much the reward of the chosen response exceeds that of the rejected one. A reward is "
    "beta times the log-probability gained since the start of DPO.",
    "Interval": "Where a figure would lie with other seeds and other prompts, 95 times of 100 or more. Of a single "
    "seed it is over prompts alone.",
    "p, Holm": "The p value goes with the interval: at 0.05 the interval ends at no difference. Holm's correction is "
    "for looking at all metrics of a comparison at once.",
    "McNemar": "An exact test of one seed's two models on the same prompts. The sign says which way the seed went.",
    "No less helpful": "The interval of the difference lies above minus the margin. Not shown is not the same as less "
    "helpful: there may be too few prompts to tell.",
    "Smallest detectable difference": "The least true difference that a test at the 5 % level would find in four of "
    "five such runs, given how much these seeds and prompts vary.",
}


def measures(results: Record) -> dict[str, Measure]:
    """The metrics that the results have, in the order of the table."""
    known = set().union(*results["arms"].values())
    for name in sorted(known - MEASURES.keys()):
        raise UserError(f"results.json: the metric {name!r} is unknown to this version, so no table could show it")
    return {name: measure for name, measure in MEASURES.items() if name in known}


def failures(results: Record) -> list[str]:
    """What failed, arm by arm, a sentence each: what a reader must know first."""
    return [f"{ARMS[failure['arm']]}: {failure['text']}" for failure in results.get("failures", [])]


def kind_of(record: Record) -> str:
    """What kind of prompt a chain or an answer is about, for the reader."""
    kind = record["kind"] or "unlabelled"
    return f"{kind}: {record['family']}" if record["family"] else str(kind)


def printable(text: str) -> str:
    """The text on one line, without characters that steer a terminal."""
    return "".join(c if c.isprintable() else "·" for c in " ".join(text.split()))
