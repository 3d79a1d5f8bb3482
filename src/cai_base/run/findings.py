"""What a run's engines measured about their models, stored in the manifest so that a resumed run uses the same."""

from cai_base.engines import Engine, Findings
from cai_base.reading import RESTORE, build
from cai_base.store import MANIFEST, JsonObject, Run

ENGINE, INTERPRETER = "engine", "interpreter"
"""The manifest's names for the findings of the run's engine and of a separate interpreter."""


def stored_findings(run: Run, name: str = ENGINE) -> Findings | None:
    """The stored findings; None if there are none.

    Raises:
        UserError: they have another form.
    """
    stored = run.recorded(name)
    return None if stored is None else build(Findings, stored, f"{run.directory / MANIFEST}: {name}", remedy=RESTORE)


def record_of(engine: Engine) -> JsonObject:
    """An engine's findings in the form in which the manifest stores them."""
    return engine.findings().model_dump(mode="json")
