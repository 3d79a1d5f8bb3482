"""The tokens that an engine has processed, as a service bills them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cai_base.engines.samples import SampleRequest
from cai_base.engines.training import Adapter


@dataclass(slots=True)
class Usage:
    """Numbers of tokens processed, counted as a service bills them: a shared prefix counts once per sequence.

    Attributes:
        trained: tokens of forward and backward passes.
        prefilled: tokens of prompts, and of forward passes without a backward pass.
        sampled: tokens generated.
    """

    trained: int = 0
    prefilled: int = 0
    sampled: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.trained + other.trained, self.prefilled + other.prefilled, self.sampled + other.sampled)

    def __mul__(self, number: int) -> "Usage":
        return Usage(number * self.trained, number * self.prefilled, number * self.sampled)

    def __sub__(self, part: "Usage") -> "Usage":
        return self + part * -1

    def add(self, other: "Usage") -> None:
        """Add the counts of `other` to this one."""
        self.trained += other.trained
        self.prefilled += other.prefilled
        self.sampled += other.sampled


class Meter:
    """Counts what an engine has processed so far, by adapter (None is the base model).

    A request to a service is counted when it is sent, at the most that it can use; the reply corrects the count.
    """

    def __init__(self) -> None:
        self.used: dict[Adapter | None, Usage] = {}
        self._listener: Callable[[], None] | None = None

    def tell(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every later change of the count."""
        self._listener = listener

    def count(self, used: Mapping[Adapter | None, Usage]) -> None:
        """Add to the count; a negative number corrects a count that was too high."""
        for adapter, usage in used.items():
            self.used.setdefault(adapter, Usage()).add(usage)
        if self._listener is not None:
            self._listener()


def sampling_usage(requests: Sequence[SampleRequest], sampled: Sequence[int]) -> dict[Adapter | None, Usage]:
    """The usage of these requests by adapter, if request `i` generates `sampled[i]` tokens."""
    usage: dict[Adapter | None, Usage] = {request.adapter: Usage() for request in requests}
    for request, tokens in zip(requests, sampled, strict=True):
        usage[request.adapter].add(Usage(prefilled=len(request.prompt), sampled=tokens))
    return usage
