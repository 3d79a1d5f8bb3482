"""What a run's engines found out about their models, as the manifest holds it for a run that goes on."""

from cai_base.engines import Engine, Findings
from cai_base.reading import RESTORE, build
from cai_base.store import MANIFEST, JsonObject, Run

ENGINE, INTERPRETER = "engine", "interpreter"
"""The names under which the manifest holds the findings of the run's engine, and of an interpreter of its own."""


def stored_findings(run: Run, name: str = ENGINE) -> Findings | None:
    """The stored findings; None if there are none.

    Raises:
        UserError: they are of another form.
    """
    stored = run.recorded(name)
    return None if stored is None else build(Findings, stored, f"{run.directory / MANIFEST}: {name}", remedy=RESTORE)


def record_of(engine: Engine) -> JsonObject:
    """What an engine found out about its model, as the manifest holds it."""
    return engine.findings().model_dump(mode="json")
