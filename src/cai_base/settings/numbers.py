"""The number types of settings. Every type has an upper bound with a reason.

Limits that depend on the model are in `run.limits`.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True, slots=True)
class AtMost:
    """In `Annotated[int, AtMost(limit, why)]`: a larger number is refused, with the reason."""

    limit: int
    why: str

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def _checked(self, value: float) -> float:
        if value > self.limit:
            raise ValueError(f"must be at most {self.limit:,}: {self.why}")
        return value


_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=1)]
_Whole = Annotated[int, Field(ge=0)]

Rank = Annotated[_Count, AtMost(65_536, "no layer of a model is wider")]
Alpha = Annotated[_Positive, AtMost(1_000_000, "updates are scaled by alpha / rank and would overflow")]
Steps = Annotated[_Count, AtMost(1_000_000, "at a tenth of a second each, more steps take longer than a day")]
BatchSize = Annotated[_Count, AtMost(4_096, "a batch goes through the model in one pass")]
Norm = Annotated[_Positive, AtMost(1_000_000_000, "no gradient has a larger norm, so nothing would be clipped")]
LearningRate = Annotated[float, Field(gt=0, le=1)]
Beta = Annotated[_Positive, AtMost(10_000, "it multiplies log-probabilities, and the loss would be 0 or infinite")]
Weight = Annotated[_NotNegative, AtMost(10_000, "it outweighs the rest of the loss entirely")]
Temperature = Annotated[
    _NotNegative, AtMost(100, "at this value all tokens are already about equally probable, and answers are noise")
]
Tokens = Annotated[_Count, AtMost(16_777_216, "no model's context holds more tokens")]
Prompts = Annotated[_Whole, AtMost(10_000_000, "a run keeps every prompt and its texts in memory")]
Pairs = Annotated[_Whole, AtMost(1_000_000_000, "no run makes more pairs")]
Rounds = Annotated[_Count, AtMost(1_000, "every round of every chain samples a critique and a revision")]
Unit = Annotated[_Count, AtMost(1_000_000, "a stop loses up to a whole unit")]
Refusals = Annotated[_Count, AtMost(6, "a seed is trained on six written answers")]
Families = Annotated[_Whole, AtMost(1_000_000, "no file of prompts has as many families")]
Draws = Annotated[_Count, AtMost(1_000, "each adds a question about every answer or pair")]
Principles = Annotated[_Whole, AtMost(1_000, "no context has room for more")]
Retries = Annotated[_Whole, AtMost(1_000, "a service that fails so often is down")]
Seconds = Annotated[_Positive, AtMost(604_800, "that is a week")]
Seeds = Annotated[_Count, AtMost(1_000, "every seed trains a separate adapter for every arm")]
SeedNumber = Annotated[_Whole, AtMost(2_147_483_647, "a seed's number has 31 bits")]
Dollars = Annotated[_Positive, AtMost(1_000_000_000, "that is more than any run costs")]
Threads = Annotated[int, Field(ge=0, le=1024)]
Share = Annotated[float, Field(ge=0, le=1)]
