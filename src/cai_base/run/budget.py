"""What a run has spent so far: seconds and tokens by phase and seed, and dollars where a service is paid.

Every commit of a unit of work stores the account in the run's manifest. Where a service is paid, `spending.json` holds
the account up to the last request; it is written before each request is sent. If the process is killed, the next one
compares the two: the difference is the work that was not committed, which is done, and paid for, a second time.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace

from cai_base import paths
from cai_base.arms import BASE
from cai_base.engines import Adapter, Meter, Usage
from cai_base.errors import Stopped
from cai_base.run import cost
from cai_base.run.prices import FREE, Prices
from cai_base.store import JsonObject, Run, to_json, write_atomic


class Budget:
    """What one run has spent, earlier processes included.

    Args:
        prices: of the paid models.
        max_cost: the cost limit in dollars.
        run: stores the account with every commit.
        meters: the engines' meters: `method`, and each judge under its flag. What they have counted so far is
            attributed to preflight.

    Attributes:
        lost: tokens of the work that was not committed when the run last stopped.
    """

    def __init__(self, prices: Prices, max_cost: float | None, run: Run, meters: Mapping[str, Meter]) -> None:
        self._max_cost, self._run = max_cost, run
        self._phase = "preflight"
        self._prices = {work: prices.of_model(model) for work, model in prices.models.items()}
        committed: JsonObject = run.recorded("spent") or {}
        path = run.directory / paths.SPENDING
        latest: JsonObject = json.loads(path.read_bytes()) if path.exists() else committed
        self._tokens = {
            phase: {seed: Usage(**usage) for seed, usage in seeds.items()}
            for phase, seeds in latest.get("tokens", {}).items()
        }
        self._dollars: float | None = latest.get("dollars", 0.0) if self._prices else None
        self.lost = _difference(_total(latest), _total(committed))
        self._repeated = Usage(**committed.get("again", {}))
        self._repeated.add(self.lost)
        self._meters: dict[str, Meter] = {}
        self._attributed: dict[tuple[str, Adapter | None], Usage] = {}
        for work, meter in meters.items():
            self.follow(work, meter)
        run.record_on_commit("spent", self.record)

    def follow(self, work: str, meter: Meter) -> None:
        """Count another engine's work as well: the `method`'s, the `instruct` model's or a judge's."""
        self._meters[work] = meter
        self._count()
        if self._prices:
            meter.tell(self._write_spending)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Attribute the seconds and tokens spent inside the `with` block to a phase."""
        start, outer = time.monotonic(), self._phase
        self._count()
        self._phase = name
        try:
            yield
        finally:
            self._count()
            self._phase = outer
            seconds = self._run.usage.setdefault("seconds", {})
            seconds[name] = round(seconds.get(name, 0.0) + time.monotonic() - start, 1)

    def record(self) -> JsonObject:
        """Tokens by phase and seed (the base model's under `base`), tokens of repeated work, and dollars."""
        self._count()
        tokens = {phase: {seed: asdict(u) for seed, u in seeds.items()} for phase, seeds in self._tokens.items()}
        dollars = None if self._dollars is None else round(self._dollars, 6)
        return {"tokens": tokens, "again": asdict(self._repeated), "dollars": dollars}

    def check_budget(self) -> None:
        """Check that the run has not reached its cost limit.

        Raises:
            Stopped: it has.
        """
        limit, spent = self._max_cost, self.record()["dollars"]
        if limit is not None and spent is not None and spent >= limit:
            raise Stopped(
                f"the run has cost {spent:.4f} of the {limit:g} dollars of --max-cost; to go on, give resume a higher "
                "--max-cost"
            )

    def close(self) -> None:
        """Delete `spending.json`: the run is finished, and its `usage.json` has the account."""
        (self._run.directory / paths.SPENDING).unlink(missing_ok=True)

    def _write_spending(self) -> None:
        write_atomic(self._run.directory / paths.SPENDING, to_json(self.record()))

    def _count(self) -> None:
        """Attribute what the meters counted since the last call to the current phase."""
        for work, meter in self._meters.items():
            price = self._prices.get(work, FREE)
            for adapter, usage in meter.used.items():
                since = _difference(usage, self._attributed.get((work, adapter), Usage()))
                if since == Usage():
                    continue
                self._attributed[work, adapter] = replace(usage)
                own = BASE if work == "method" else work
                seed = own if adapter is None else adapter.rpartition("/")[2]
                self._tokens.setdefault(self._phase, {}).setdefault(seed, Usage()).add(since)
                if self._dollars is not None:
                    self._dollars = None if price is None else self._dollars + price.of(since)


def _total(record: JsonObject) -> Usage:
    return cost.total(Usage(**usage) for seeds in record.get("tokens", {}).values() for usage in seeds.values())


def _difference(first: Usage, second: Usage) -> Usage:
    return Usage(first.trained - second.trained, first.prefilled - second.prefilled, first.sampled - second.sampled)
