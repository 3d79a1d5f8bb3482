"""Registers the model provider `cai_base` with Inspect. The model itself is imported when it is asked for."""

from inspect_ai.model import ModelAPI, modelapi


@modelapi(name="cai_base")
def cai_base() -> type[ModelAPI]:
    """The provider, as Inspect's registry takes it."""
    from cai_base.integrations.inspect_model import CaiBaseModel

    return CaiBaseModel
