"""What a run has spent so far: seconds and tokens by phase and seed, and dollars where a service is paid.

What is stored with a unit is in the run's manifest. Where a service is paid, `spending.json` also holds what was sent
since, written before each request goes out: a process that is killed leaves behind what it had begun, and the next one
knows how much of that is worked on, and paid for, again.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace

from cai_base import paths
from cai_base.engines import Adapter, Meter, Usage
from cai_base.errors import Stopped
from cai_base.run import cost
from cai_base.settings.schema import RunSettings
from cai_base.store import Record, Run, to_json, write_atomic


class Budget:
    """What one run has spent, earlier processes included.

    Args:
        settings: with the prices and the limit.
        run: where the account is kept, at every commit.
        meters: whose work is counted: the `method`'s, each judge's under its flag. What they have counted by now is
            preflight's.

    Attributes:
        lost: tokens of what was under way when the run was last stopped.
    """

    def __init__(self, settings: RunSettings, run: Run, meters: Mapping[str, Meter]) -> None:
        self._settings, self._run = settings, run
        self._phase = "preflight"
        self._prices = {work: cost.price(settings, model) for work, model in cost.paid_models(settings).items()}
        stored: Record = run.recorded("spent") or {}
        path = run.directory / paths.SPENDING
        begun: Record = json.loads(path.read_bytes()) if path.exists() else stored
        self._tokens = {
            phase: {seed: Usage(**found) for seed, found in seeds.items()}
            for phase, seeds in begun.get("tokens", {}).items()
        }
        self._dollars: float | None = begun.get("dollars", 0.0) if self._prices else None
        self.lost = _less(_all(begun), _all(stored))
        self._again = Usage(**stored.get("again", {}))
        self._again.add(self.lost)
        self._meters: dict[str, Meter] = {}
        self._counted: dict[tuple[str, Adapter | None], Usage] = {}
        for work, meter in meters.items():
            self.follow(work, meter)
        run.record_on_commit("spent", self.record)

    def follow(self, work: str, meter: Meter) -> None:
        """Count this engine's work, too: the `method`'s, the `instruct` model's or a judge's."""
        self._meters[work] = meter
        self._count()
        if self._prices:
            meter.tell(self._keep)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Put down the seconds and tokens that are spent meanwhile to a phase."""
        begun, outer = time.monotonic(), self._phase
        self._count()
        self._phase = name
        try:
            yield
        finally:
            self._count()
            self._phase = outer
            seconds = self._run.usage.setdefault("seconds", {})
            seconds[name] = round(seconds.get(name, 0.0) + time.monotonic() - begun, 1)

    def record(self) -> Record:
        """Tokens so far, by phase and seed (the base model's are all seeds'), those worked on again, and dollars."""
        self._count()
        tokens = {phase: {seed: asdict(u) for seed, u in seeds.items()} for phase, seeds in self._tokens.items()}
        dollars = None if self._dollars is None else round(self._dollars, 6)
        return {"tokens": tokens, "again": asdict(self._again), "dollars": dollars}

    def check_budget(self) -> None:
        """Check that the run may go on.

        Raises:
            Stopped: it has cost what it may.
        """
        limit, spent = self._settings.max_cost, self.record()["dollars"]
        if limit is not None and spent is not None and spent >= limit:
            raise Stopped(
                f"the run has cost {spent:.4f} of the {limit:g} dollars of --max-cost; to go on, give resume a higher "
                "--max-cost"
            )

    def close(self) -> None:
        """The run is over, and what it took is in its `usage.json`."""
        (self._run.directory / paths.SPENDING).unlink(missing_ok=True)

    def _keep(self) -> None:
        write_atomic(self._run.directory / paths.SPENDING, to_json(self.record()))

    def _count(self) -> None:
        """Put down to the present phase what was worked on since this was last called."""
        for work, meter in self._meters.items():
            price = self._prices.get(work, cost.FREE)
            for adapter, used in meter.used.items():
                since = _less(used, self._counted.get((work, adapter), Usage()))
                if since == Usage():
                    continue
                self._counted[work, adapter] = replace(used)
                own = "base" if work == "method" else work
                seed = own if adapter is None else adapter.rpartition("/")[2]
                self._tokens.setdefault(self._phase, {}).setdefault(seed, Usage()).add(since)
                if self._dollars is not None:
                    self._dollars = None if price is None else self._dollars + price.of(since)


def _all(record: Record) -> Usage:
    return cost.total(Usage(**used) for seeds in record.get("tokens", {}).values() for used in seeds.values())


def _less(more: Usage, less: Usage) -> Usage:
    return Usage(more.trained - less.trained, more.prefilled - less.prefilled, more.sampled - less.sampled)
