"""Feedback, the paper's second stage: comparisons under the constitution label pairs of the model's own answers.

Bai et al. 2022, section 4.1: sample two responses to a prompt, ask under a principle drawn at random which is better,
and take the probability of the answer as the label. Here the base model itself is asked, through its SFT adapter,
unless `--interpreter` names another model, and DPO trains on the labels where the paper trains a reward model.

Needs the adapters that answer (SFT's, or SL-CAI's) and, where they interpret for themselves, SFT's. Stores both
responses, the comparisons and the judge's verdicts of every prompt, one unit of prompts at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from cai_base import arms, dialogue, randomness
from cai_base.arms import SFT, Arm
from cai_base.dialogue import Compared
from cai_base.engines import Usage
from cai_base.inputs import Inputs
from cai_base.inputs.comparisons import ComparisonRequest, SolvedComparison
from cai_base.inputs.prompts import Prompt
from cai_base.method.comparing import Question, compare, comparing_cost
from cai_base.method.phase import Request, Size, Workbench, adapter_name, mean
from cai_base.method.responses import Sampling, in_units, two_responses, two_responses_cost
from cai_base.progress import Advance
from cai_base.records import TwoResponses
from cai_base.settings.feedback import Feedback
from cai_base.settings.schema import Revision

ANSWERS = ("first response", "second response")
"""The second parts of the addresses of the two responses."""
PURPOSE = "comparison"
"""The second part of the addresses of what is drawn to compare them."""


@dataclass(frozen=True, slots=True)
class FeedbackPhase:
    """From the adapters of one arm to pairs of its responses with labels, for all the method's prompts.

    Attributes:
        requests: of which every pair draws `settings.principles`, without replacement.
        solved: comparisons that stand before every comparison.
        response_tokens: the longest response.
        unit: prompts that are stored together.
        answering: the phase whose adapters answer.
        owner: the folder of the arm that is trained on the labels.
    """

    settings: Feedback
    prompts: Sequence[Prompt]
    requests: Sequence[ComparisonRequest]
    solved: Sequence[SolvedComparison]
    response_tokens: int
    unit: int
    answering: str
    owner: str

    @classmethod
    def of_arm(cls, arm: Arm, settings: Feedback, revision: Revision, inputs: Inputs) -> Self:
        """The responses and comparisons that the arm's own pairs are made from; its starting point answers."""
        return cls(
            settings,
            inputs.prompts,
            inputs.comparison_requests,
            inputs.solved_comparisons,
            revision.response_tokens,
            revision.unit,
            arms.arm(arm.starts_from).phase,
            arm.phase,
        )

    @property
    def name(self) -> str:
        return f"responses of {self.owner}"

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((SFT, self.answering)))

    @property
    def principles(self) -> int:
        """How many principles label a pair."""
        return min(self.settings.principles, len(self.requests))

    def run(self, bench: Workbench) -> None:
        seeds = bench.remaining(*self.needs)
        if not seeds:
            return
        adapters = {adapter_name(self.answering, seed): seed for seed in seeds}
        sampling = Sampling(ANSWERS, self.settings.temperature, self.response_tokens)

        def draw(prompts: Sequence[Prompt], advance: Advance) -> dict[int, list[TwoResponses]]:
            by_seed = two_responses(bench.engine, bench.dialogue, sampling, adapters, prompts, advance)
            return _judged(bench, self._compared(bench, by_seed), prompts)

        in_units(bench, self.name, self.owner, self.prompts, self.unit, 2 * len(seeds), draw)

    def _compared(self, bench: Workbench, by_seed: dict[int, list[TwoResponses]]) -> dict[int, list[TwoResponses]]:
        """The pairs with their comparisons; one that gives no preference pair is not compared."""
        open_pairs = [
            (seed, two, self._questions(bench, seed, two))
            for seed, of_seed in by_seed.items()
            for two in of_seed
            if two.outcome == "pair"
        ]
        questions = [question for _, _, of_pair in open_pairs for question in of_pair]
        comparisons, sampled = (
            compare(bench.interpreter, self.solved, self.settings, questions) if questions else ([], [])
        )
        each, tokens = iter(comparisons), iter(sampled)
        done = {}
        for seed, two, of_pair in open_pairs:
            more = {
                "comparisons": tuple(next(each) for _ in of_pair),
                "sampled_tokens": two.sampled_tokens + sum(next(tokens) for _ in of_pair),
            }
            done[seed, two.id] = two.model_copy(update=more)
        return {seed: [done.get((seed, two.id), two) for two in of_seed] for seed, of_seed in by_seed.items()}

    def _questions(self, bench: Workbench, seed: int, two: TwoResponses) -> list[Question]:
        """The pair under each of its principles."""
        draw = randomness.stream(seed, PURPOSE, two.id, "principles")
        places = draw.permutation(len(self.requests))[: self.principles]
        model = bench.interpreter.model(adapter_name(SFT, seed))
        return [
            Question(model, two.prompt, two.responses, self.requests[int(n)], (seed, PURPOSE, two.id, int(n)))
            for n in places
        ]

    def cost(self, size: Size) -> Usage:
        usage = two_responses_cost(size, self.response_tokens)
        usage.add(self.interpreter_cost(size))
        return usage

    def interpreter_cost(self, size: Size) -> Usage:
        """The comparisons: both letters in both orders under every principle, and the reasoning before them."""
        pairs = size.seeds * len(self.prompts)
        by_length = sorted(self.prompts, key=lambda prompt: len(prompt.text))
        middle = by_length[len(by_length) // 2].text
        lengths = [size.length(self._text(request, middle)) + 2 * self.response_tokens for request in self.requests]
        return comparing_cost(self.settings, pairs * self.principles, mean(lengths))

    @property
    def judged_responses(self) -> int:
        return 2

    def longest_request(self, size: Size) -> Request | None:
        """A comparison holds the prompt and two responses, and where the interpreter reasons its reasoning."""
        longest = max(self.prompts, key=lambda prompt: len(size.tokenizer.encode(prompt.text))).text
        thoughts = self.settings.thought_tokens if self.settings.chain_of_thought else 0
        fixed = max(size.length(self._text(request, longest)) for request in self.requests)
        return Request(fixed + thoughts, responses=2, shared=True)

    def _text(self, request: ComparisonRequest, prompt: str) -> str:
        """A comparison without its responses."""
        pair = Compared(prompt, ("", ""))
        if self.settings.chain_of_thought:
            return dialogue.reasoned(request.text, pair, "")
        shots = [(Compared(one.prompt, (one.better, one.worse)), 0) for one in self.solved]
        return dialogue.comparison(request.text, shots, pair) + dialogue.option(0)


def _judged(
    bench: Workbench, by_seed: dict[int, list[TwoResponses]], prompts: Sequence[Prompt]
) -> dict[int, list[TwoResponses]]:
    """The pairs with the judge's verdict on either response, to measure the labels by; no label depends on it."""
    known = {prompt.id: prompt for prompt in prompts}
    every = [two for of_seed in by_seed.values() for two in of_seed]
    judgements = iter(bench.judge([(known[two.id], text) for two in every for text in two.responses]))
    judged: dict[int, list[TwoResponses]] = {}
    for seed, of_seed in by_seed.items():
        judged[seed] = []
        for two in of_seed:
            of_pair = [next(judgements) for _ in two.responses]
            verdicts, unscored = tuple(one.verdict for one in of_pair), tuple(one.unscored for one in of_pair)
            judged[seed].append(two.model_copy(update={"verdicts": verdicts, "unscored": unscored}))
    return judged
