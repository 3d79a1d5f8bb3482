"""The settings of feedback."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import CliImplicitFlag

from cai_base.settings import numbers
from cai_base.settings.section import Section


class Feedback(Section):
    """Comparison of two answers under the constitution, for the preference labels of arms with feedback."""

    requests: Path | None = Field(
        None,
        description="comparison requests that replace the constitution's: text, one per line, or the CAI paper's "
        "RLMadisonInstructions.json",
    )
    examples: Path | None = Field(
        None,
        description="few-shot examples for comparisons: JSONL or the CAI paper's RLMadisonFewShotPrompts.json",
    )
    temperature: numbers.Temperature = Field(
        1.0,
        description="temperature at which the two answers, and the reasoning of the chain of thought, are sampled",
    )
    principles: numbers.Draws = Field(4, description="principles drawn for every pair; its label is the mean over them")
    chain_of_thought: CliImplicitFlag[bool] = Field(
        False, description="let the interpreter reason before it compares; labels are then clamped to 40 to 60 %"
    )
    thought_tokens: numbers.Tokens = Field(96, description="most tokens of this reasoning")
