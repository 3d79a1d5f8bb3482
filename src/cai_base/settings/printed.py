"""The settings of a run as a TOML file, with the origin of each."""

import json
from collections.abc import Iterator, Mapping

from cai_base.settings.presets import Table
from cai_base.settings.schema import RunSettings
from cai_base.settings.validation import Source

HEAD = "# Every setting of this run. Without a remark it is the default for this model."


def as_toml(settings: RunSettings, source: Source) -> str:
    """Every setting, as a file for `--config`.

    Beside a setting that a flag or a file gave stands which of them. One without a value is a remark.
    """
    table: Table = settings.model_dump(mode="json", by_alias=True)
    return "\n".join([HEAD, *_lines(table, source, "")]) + "\n"


def _lines(table: Table, source: Source, section: str) -> Iterator[str]:
    """The settings of a section, then its sections."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            continue
        field = f"{section}.{name}" if section else name
        remark = f"  # {source.place(field)}" if source.gives(field) else ""
        yield f"# {name} has no value" if value is None else f"{name} = {json.dumps(value, ensure_ascii=False)}{remark}"
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield f"\n[{name}]"
            yield from _lines(value, source, name)
