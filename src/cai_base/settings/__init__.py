"""Every setting of a run: the schema, the presets, the command line."""

from cai_base.embedded import EMBEDDED
from cai_base.settings import command_line
from cai_base.settings.schema import RunSettings

__all__ = ["RunSettings", "default_settings"]


def default_settings(model: str = EMBEDDED, **changes: object) -> RunSettings:
    """The settings of `cai-base run` for a model: its defaults, with some of them changed.

    What a default depends on is taken into account: the model, `protocol`, and the loss, which has its own `dpo.beta`.

    Args:
        model: folder, GGUF file or hub id of a base model; the embedded one by default.
        changes: fields of `RunSettings` with their new values; for a section a mapping of the fields that change, such
            as `dpo={"steps": 100, "loss": "ipo"}`. A model other than the embedded one needs `judge_url`, or another
            `judge`.

    Raises:
        UserError: there is no such setting, or a value is wrong; the message names it.
    """
    return command_line.from_python({"model": model, **changes})
