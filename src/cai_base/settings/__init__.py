"""Every setting of a run: the schema, the presets, the command line."""

from cai_base.embedded import EMBEDDED
from cai_base.settings.command_line import load_settings
from cai_base.settings.schema import RunSettings

__all__ = ["RunSettings", "default_settings"]


def default_settings(model: str = EMBEDDED, *flags: str) -> RunSettings:
    """The settings of `cai-base run` for a model, changed by flags.

    Args:
        model: folder or hub id of a base model; the embedded one by default.
        flags: for example `"--sft.steps", "100"`.

    Raises:
        UserError: a flag or value is wrong; the message names it.
    """
    return load_settings(["--model", model, *flags]).settings
