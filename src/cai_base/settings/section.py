"""The base class of every group of settings."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A group of settings: `--sft.steps` is the field `steps` of the section `sft`."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=lambda name: name.replace("_", "-"), hide_input_in_errors=True
    )
