"""What a run has spent so far: seconds and tokens by phase and seed, and dollars where a service is paid."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace

from cai_base import cost
from cai_base.config import RunSettings
from cai_base.engines import Adapter, Engine, Usage
from cai_base.errors import Stopped
from cai_base.store import Record, Run


class Account:
    """The account of one run; what earlier processes spent on it is in it.

    Args:
        settings: with the price and the limit.
        engine: whose work is counted.
        run: where the account is kept, at every commit.
    """

    def __init__(self, settings: RunSettings, engine: Engine, run: Run) -> None:
        self._settings, self._run = settings, run
        self._phase = "preflight"
        self._spent = {
            phase: {seed: Usage(**found) for seed, found in seeds.items()}
            for phase, seeds in ((run.found("spent") or {}).get("tokens") or {}).items()
        }
        self._counted: dict[Adapter | None, Usage] = {}
        self._usage = engine.usage  # what is spent stays known when the engine is let go
        run.watch("spent", self.record)

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
        """Tokens so far, by phase and seed (the base model's are all seeds'), and what they cost if that is known."""
        self._count()
        tokens = {phase: {seed: asdict(u) for seed, u in seeds.items()} for phase, seeds in self._spent.items()}
        return {"tokens": tokens, "dollars": self._dollars()}

    def afford(self) -> None:
        """See that the run may go on.

        Raises:
            Stopped: it has cost what it may.
        """
        limit, spent = self._settings.max_cost, self.record()["dollars"]
        if limit is not None and spent is not None and spent >= limit:
            raise Stopped(
                f"the run has cost {spent:.4f} of the {limit:g} dollars of --max-cost; to go on, give resume a higher "
                "--max-cost"
            )

    def _count(self) -> None:
        """Put down to the present phase what the engine has worked on since this was last called."""
        for adapter, usage in self._usage.items():
            before = self._counted.get(adapter, Usage())
            since = Usage(
                usage.trained - before.trained, usage.prefilled - before.prefilled, usage.sampled - before.sampled
            )
            self._counted[adapter] = replace(usage)
            if since != Usage():
                seed = "base" if adapter is None else adapter.rpartition("/")[2]
                self._spent.setdefault(self._phase, {}).setdefault(seed, Usage()).add(since)

    def _dollars(self) -> float | None:
        known = cost.price(self._settings) if self._settings.engine == "tinker" else None
        spent = cost.total(usage for seeds in self._spent.values() for usage in seeds.values())
        return None if known is None else round(known.of(spent), 6)
