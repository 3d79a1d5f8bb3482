"""Decides where keys and values are kept while responses are drawn: in the first cache that draws from the right
distribution.

A few tokens are given to the model in the place of draws, once with each cache and once without any. Behind every one
of them the likely next tokens must have the same log-probabilities. What a cache can be wrong about is in these rows:
a shared prefix, filler, a sliding window's end, layers that take their keys from another one, a row that ends early.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from cai_base import randomness
from cai_base.engines import Lora, Sample, SampleRequest
from cai_base.engines.local.cache import CacheKind, KeptPrefixes
from cai_base.engines.local.lora import Bank
from cai_base.engines.local.masks import Masks
from cai_base.engines.local.sampling import Drawing, Ends, SampledBatch
from cai_base.engines.tokenizer import one_line

PREFIX, ENDS, TOKENS = 16, (3, 5, 8), (3, 3, 1)
"""Tokens that the prompts share, that each has of its own, and that are given to each: the last row ends first."""
WINDOW = 12
"""The sliding window under which caches are compared: it begins and ends within the prefix."""
LIKELY = 64
"""How many of the most probable tokens are compared. The others are nearly never drawn."""
TOLERANCE = {torch.float32: 5e-4, torch.bfloat16: 0.25}
"""The largest difference of a likely token's log-probabilities with and without a cache, in nats, that is rounding.

It is the greatest one that counts, since the mean over a large vocabulary hides a few tokens that are wrong. Small
models of more than 30 architectures differ by up to 2e-5 in float32. In bfloat16, for models that cannot be cast to
float32, they differ by up to 0.05, and by 0.21 where rounding gives a token to another expert. Faults that were planted
(a row in another's place, a window one token longer, filler that is seen, a position one further) differ by 0.39 at
least."""
ERRORS = (ValueError, RuntimeError, TypeError, KeyError, AttributeError, IndexError)
"""What models raise that do not work with a cache."""


def choose_cache(model: PreTrainedModel, *, packed: bool) -> tuple[CacheKind | None, list[str]]:
    """The first cache that works with `model`, and why each before it does not.

    Args:
        model: frozen, without adapters.
        packed: whether it accepts ready-made attention masks; without them only transformers' own cache is tried.

    Returns:
        The cache, None if there is none, and a reason for each cache that was tried in vain.
    """
    kinds: tuple[CacheKind, ...] = ("shared", "rows", "transformers") if packed else ("transformers",)
    reasons: list[str] = []
    with _narrow(model):
        reference = _Rows(model).without_cache()
        for kind in kinds:
            reason = _difference(model, kind, reference)
            if reason is None:
                return kind, reasons
            reasons.append(reason)
    return None, reasons


class _Rows:
    """The prompts, and the tokens that are given in the place of draws."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        n = PREFIX + sum(ENDS) + max(TOKENS)
        vocabulary = model.config.get_text_config().vocab_size
        tokens = randomness.stream("cache").integers(0, vocabulary, n).tolist()
        prefix, rest = tokens[:PREFIX], tokens[PREFIX:]
        ends = [rest[sum(ENDS[:i]) : sum(ENDS[: i + 1])] for i in range(len(ENDS))]
        self.prompts = [(*prefix, *end) for end in ends]
        self.tokens = rest[sum(ENDS) :]

    def without_cache(self) -> list[list[Tensor]]:
        """Each row's log-probabilities `[vocabulary]` behind its prompt and behind each token, computed anew."""
        rows = [(*prompt, *self.tokens[: n - 1]) for prompt, n in zip(self.prompts, TOKENS, strict=True)]
        longest = max(map(len, rows))
        # Filler behind a row changes nothing in it: the model is causal.
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=self.model.device)
        last = longest - min(map(len, self.prompts)) + 1
        with torch.inference_mode():
            logits = self.model(input_ids=ids, use_cache=False, logits_to_keep=last).logits[:, -last:].float()
        logprobs, before = logits.log_softmax(dim=-1), longest - last
        return [
            list(every[len(prompt) - 1 - before : len(row) - before])
            for every, prompt, row in zip(logprobs, self.prompts, rows, strict=True)
        ]

    def with_cache(self, kind: CacheKind) -> list[list[Tensor]]:
        """The same, as responses are drawn."""
        ends = _Lengths()
        drawings = [
            Drawing(SampleRequest(None, prompt, n, 1.0, (), 0), ends)
            for prompt, n in zip(self.prompts, TOKENS, strict=True)
        ]
        seen: list[list[Tensor]] = [[] for _ in drawings]
        bank = Bank(self.model.get_input_embeddings(), "", Lora(rank=1, alpha=1.0))  # has no layer to adapt
        batch = SampledBatch(self.model, bank, {None: drawings}, KeptPrefixes(0), kind)

        def give(logits: Tensor) -> None:
            logprobs = logits.log_softmax(dim=-1)
            for i, row in enumerate(batch.grid):
                if row is not None and row.sample is None:
                    seen[next(j for j, one in enumerate(drawings) if one is row)].append(logprobs[i])
                    row.add(self.tokens[len(row.tokens)])

        batch.run(give)
        return seen


class _Lengths(Ends):
    """Ends a response by its length alone."""

    def __init__(self) -> None:
        pass

    def sample(self, request: SampleRequest, tokens: list[int]) -> Sample | None:
        return Sample("", tuple(tokens), "length") if len(tokens) == request.max_tokens else None


def _difference(model: PreTrainedModel, kind: CacheKind, reference: list[list[Tensor]]) -> str | None:
    """Why responses cannot be drawn with this cache; None if they can."""
    try:
        seen = _Rows(model).with_cache(kind)
    except ERRORS as error:
        return one_line(error)
    largest = max(
        likely_difference(one, other)
        for mine, theirs in zip(seen, reference, strict=True)
        for one, other in zip(mine, theirs, strict=True)
    )
    if largest <= TOLERANCE[model.dtype]:
        return None
    return f"a likely token's log-probabilities with it and without any differ by {largest:.2g} nats"


def likely_difference(logprobs: Tensor, reference: Tensor) -> float:
    """The largest difference of the log-probabilities `[vocabulary]` of the most probable tokens of `reference`."""
    likely = reference.topk(min(LIKELY, len(reference))).indices
    return float((logprobs - reference)[likely].abs().max())


@contextmanager
def _narrow(model: PreTrainedModel) -> Iterator[None]:
    """Within it the model's sliding windows are `WINDOW` tokens, so that few tokens reach beyond them."""
    config = model.config.get_text_config()
    if Masks.of(model).window is None:
        yield
        return
    window = config.sliding_window
    config.sliding_window = min(WINDOW, window)
    try:
        yield
    finally:
        config.sliding_window = window
