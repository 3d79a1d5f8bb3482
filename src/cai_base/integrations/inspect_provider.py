"""Registers the model provider `cai_base` with Inspect. The model's module is imported on first use."""

from inspect_ai.model import ModelAPI, modelapi


@modelapi(name="cai_base")
def cai_base() -> type[ModelAPI]:
    """The provider's class, for Inspect's registry."""
    from cai_base.integrations.inspect_model import CaiBaseModel

    return CaiBaseModel
