"""A check, how it is shown, and what happens if it does not pass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cai_base.errors import UserError
from cai_base.reading import listed
from cai_base.store import to_json

Outcome = Literal["passed", "warned", "failed"]


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        finding: the measurement, in numbers; equal between equal runs.
        do: advice; empty if the check passed.
    """

    name: str
    outcome: Outcome
    finding: str
    do: str = ""

    def dump(self) -> dict[str, str]:
        """The entry in `preflight.json`."""
        return {"name": self.name, "outcome": self.outcome, "found": self.finding, "do": self.do}

    def __str__(self) -> str:
        return f"{self.name} {self.outcome}: {self.finding}" + (f"; {self.do}" if self.do else "")


def advice(checks: Sequence[Check], accepted: Sequence[str]) -> str:
    """One sentence for below the table: the checks that failed and are not accepted; empty if there are none."""
    names = [check.name for check in _refused(checks, accepted)]
    if not names:
        return ""
    accept = ",".join([*accepted, *names])
    return f"preflight: {listed(names)} failed; a run would not start, unless it is given --accept {accept}"


def refuse(checks: Sequence[Check], accepted: Sequence[str]) -> list[str]:
    """The warnings of checks that warned, or that failed and are accepted.

    Raises:
        UserError: a check failed, and `--accept` does not name it.
    """
    refused = _refused(checks, accepted)
    if refused:
        lines = "\n".join(f"preflight, {check}" for check in refused)
        names = ",".join([*accepted, *(check.name for check in refused)])
        raise UserError(f"{lines}\nnothing was started; fix this, or start anyway with --accept {names}")
    return [
        f"preflight, {check.name} {'failed and was accepted' if check.outcome == 'failed' else 'warned'}: "
        f"{check.finding}" + (f"; {check.do}" if check.do else "")
        for check in checks
        if check.outcome != "passed"
    ]


def _refused(checks: Sequence[Check], accepted: Sequence[str]) -> list[Check]:
    return [check for check in checks if check.outcome == "failed" and check.name not in accepted]


def by_outcome(checks: Sequence[Check]) -> Mapping[Outcome, list[str]]:
    """The checks' names by outcome."""
    outcomes: tuple[Outcome, ...] = ("passed", "warned", "failed")
    return {outcome: [check.name for check in checks if check.outcome == outcome] for outcome in outcomes}


def table(checks: Sequence[Check]) -> str:
    """The checks as a table for the terminal."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.name:<{width}}  {check.outcome}  {check.finding}")
        if check.do:
            lines.append(f"{'':<{width}}          {check.do}")
    return "\n".join(lines) + "\n"


def as_json(checks: Sequence[Check]) -> str:
    """The checks as JSON."""
    return to_json([check.dump() for check in checks]).decode()
