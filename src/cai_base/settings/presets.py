"""The packaged presets, and how settings from several places are merged.

A setting comes from the first place that has it: the flag, the `--config` file, the preset. `original` has the
original experiment's values; `embedded` overrides some of them for the embedded model on a laptop.
"""

import tomllib
from collections.abc import Mapping
from importlib import resources

from cai_base.embedded import DATA, is_embedded
from cai_base.settings.judges import GROUND_TRUTH
from cai_base.settings.schema import LOSSES

Table = Mapping[str, object]
"""Settings by name, a section's in a table of their own, as in a TOML file, before they are checked."""


def preset(name: str) -> dict[str, object]:
    """The settings of a packaged preset."""
    return tomllib.loads((resources.files("cai_base") / "data" / "presets" / f"{name}.toml").read_text())


def defaults(model: str, protocol: str = "heldout", loss: str | None = None) -> dict[str, object]:
    """The default settings of a run on this model.

    Args:
        model: a folder, a hub id or the embedded model.
        protocol: with `original` the embedded model also has the original experiment's values, and no pair is held out,
            as in that experiment.
        loss: the preference loss, which may have its own default of beta; None for the presets' loss.
    """
    chosen = LOSSES.get(loss or "")
    beta = {} if chosen is None or chosen.beta is None else {"dpo": {"beta": chosen.beta}}
    return merge(_of_model(model, protocol), beta)


def _of_model(model: str, protocol: str) -> dict[str, object]:
    original = preset("original")
    if protocol == "original":
        original = merge(original, {"dpo": {"held-out": 0.0}})
    if not is_embedded(model):
        return original
    world = {"data": DATA, "judge": GROUND_TRUTH}
    settings = merge(original, preset("embedded"))
    return merge(settings, original if protocol == "original" else {}) | world


def merge(low: Table, high: Table) -> dict[str, object]:
    """Merge two tables section by section; values of `high` win."""
    merged = dict(low)
    for key, value in high.items():
        below = merged.get(key)
        merged[key] = merge(below if isinstance(below, Mapping) else {}, value) if isinstance(value, Mapping) else value
    return merged
