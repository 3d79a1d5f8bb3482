"""What a run has spent so far: seconds and tokens by phase and seed, and dollars if it uses a paid service.

Every commit of a unit of work stores the account in the run's manifest. With a paid service, `spending.json` has
the account up to the last request; it is written before each request is sent. If the process is killed, the next one
compares the two: the difference is uncommitted work, which is done, and paid for, a second time.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from cai_base import paths
from cai_base.arms import BASE
from cai_base.engines import Adapter, Meter, Usage
from cai_base.errors import Stopped
from cai_base.method.phase import adapter_seed
from cai_base.reading import RESTORE, build, read_record
from cai_base.records import NOTHING, Spending, TokensUsed
from cai_base.run.spending.prices import FREE, Prices
from cai_base.store import MANIFEST, Run, to_json, write_atomic

PREFLIGHT = "preflight"
"""The phase before all others; its time is not counted."""


class Budget:
    """What one run has spent, including earlier processes.

    Args:
        prices: of the paid models.
        max_cost: the cost limit in dollars.
        run: stores the account with every commit.
        meters: the engines' meters: `method`, and each judge under its flag. What they have counted so far is
            attributed to preflight.

    Attributes:
        lost: tokens of the uncommitted work when the run last stopped.
    """

    def __init__(self, prices: Prices, max_cost: float | None, run: Run, meters: Mapping[str, Meter]) -> None:
        self._max_cost, self._run = max_cost, run
        self._phase = PREFLIGHT
        self._clock = time.monotonic()
        self._seconds: dict[str, float] = dict(run.usage.get("seconds", {}))
        self._prices = {work: prices.of_model(model) for work, model in prices.models.items()}
        stored, path = run.recorded("spent"), run.directory / paths.SPENDING
        where = f"{run.directory / MANIFEST}: spent"
        committed = NOTHING if stored is None else build(Spending, stored, where, remedy=RESTORE)
        latest = read_record(path, Spending, "what a run has spent", RESTORE) if path.exists() else committed
        self._tokens = {
            phase: {seed: _usage(tokens) for seed, tokens in seeds.items()} for phase, seeds in latest.tokens.items()
        }
        self._dollars = latest.dollars if self._prices else None
        self.lost = _difference(_total(latest), _total(committed))
        self._repeated = _usage(committed.again)
        self._repeated.add(self.lost)
        self._meters: dict[str, Meter] = {}
        self._attributed: dict[tuple[str, Adapter | None], Usage] = {}
        for work, meter in meters.items():
            self.follow(work, meter)
        run.record_on_commit("spent", lambda: self.spending().dump())

    def follow(self, work: str, meter: Meter) -> None:
        """Also count the tokens of another engine: the `method`'s, the `instruct` model's or a judge's."""
        self._meters[work] = meter
        self._count()
        if self._prices:
            meter.tell(self._write_spending)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Attribute seconds and tokens spent inside the `with` block to a phase, but for those of a phase within it.

        A commit inside the block stores them so far.
        """
        outer = self._phase
        self._count()
        self._phase = name
        try:
            yield
        finally:
            self._count()
            self._phase = outer

    def seconds(self) -> dict[str, float]:
        """The seconds spent so far in each phase. Changes nothing, so that another thread may ask."""
        now, phase = self._clock, self._phase
        seconds = dict(self._seconds)
        if phase != PREFLIGHT:
            seconds[phase] = seconds.get(phase, 0.0) + time.monotonic() - now
        return seconds

    def spending(self) -> Spending:
        """What the run has spent so far."""
        self._count()
        return Spending(
            tokens={phase: {seed: _tokens(u) for seed, u in seeds.items()} for phase, seeds in self._tokens.items()},
            again=_tokens(self._repeated),
            dollars=None if self._dollars is None else round(self._dollars, 6),
        )

    def check_budget(self) -> None:
        """Check that the run has not reached its cost limit.

        Raises:
            Stopped: the limit is reached.
        """
        limit, spent = self._max_cost, self.spending().dollars
        if limit is not None and spent is not None and spent >= limit:
            raise Stopped(
                f"the run has cost {spent:.4f} of the {limit:g} dollars of --max-cost; to continue, give resume a "
                "higher --max-cost"
            )

    def close(self) -> None:
        """Delete `spending.json` and `live.json`: the run is finished, and its `usage.json` has the account."""
        for name in (paths.SPENDING, paths.LIVE):
            (self._run.directory / name).unlink(missing_ok=True)

    def _write_spending(self) -> None:
        write_atomic(self._run.directory / paths.SPENDING, to_json(self.spending().dump()))

    def _count(self) -> None:
        """Attribute the time since the last call, and what the meters counted, to the current phase."""
        now = time.monotonic()
        if self._phase != PREFLIGHT:
            self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + now - self._clock
            self._run.usage["seconds"] = {phase: round(seconds, 1) for phase, seconds in self._seconds.items()}
        self._clock = now
        for work, meter in self._meters.items():
            price = self._prices.get(work, FREE)
            for adapter, usage in meter.used.items():
                since = _difference(usage, self._attributed.get((work, adapter), Usage()))
                if since == Usage():
                    continue
                self._attributed[work, adapter] = replace(usage)
                self._tokens.setdefault(self._phase, {}).setdefault(_spender(work, adapter), Usage()).add(since)
                if self._dollars is not None:
                    self._dollars = None if price is None else self._dollars + price.of(since)


def _spender(work: str, adapter: Adapter | None) -> str:
    """Under which key of `Spending.tokens` a model's tokens are: its seed, or the name of the model or its work."""
    if adapter is None:
        return BASE if work == "method" else work
    return str(adapter_seed(adapter)) if work == "method" else adapter


def _usage(tokens: TokensUsed) -> Usage:
    return Usage(tokens.trained, tokens.prefilled, tokens.sampled)


def _tokens(usage: Usage) -> TokensUsed:
    return TokensUsed(trained=usage.trained, prefilled=usage.prefilled, sampled=usage.sampled)


def _total(spending: Spending) -> Usage:
    return sum((_usage(tokens) for seeds in spending.tokens.values() for tokens in seeds.values()), Usage())


def _difference(first: Usage, second: Usage) -> Usage:
    return Usage(first.trained - second.trained, first.prefilled - second.prefilled, first.sampled - second.sampled)
