"""Prices of a run's paid models per token, and the cost of tokens at these prices.

A service charges for tokens trained on (forward and backward), tokens read (prompts before sampling, and
forward passes without training), and tokens sampled.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from cai_base.arms import INSTRUCT
from cai_base.engines import Usage
from cai_base.errors import UserError
from cai_base.models import interpreter_engine
from cai_base.settings.choices import Models
from cai_base.settings.engines import engine_kind, engine_prefix
from cai_base.settings.values import TokenPrices


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens, and their source."""

    prefill: float
    sample: float
    train: float
    source: str

    def of(self, usage: Usage) -> float:
        """The cost of these tokens in dollars."""
        return (usage.prefilled * self.prefill + usage.sampled * self.sample + usage.trained * self.train) / 1e6


FREE = Price(0.0, 0.0, 0.0, "no paid service")


@dataclass(frozen=True, slots=True)
class Prices:
    """The paid models of a run, and their prices.

    Attributes:
        models: of paid services, by their work: `method`, `instruct`, `interpreter`, or the flag that names a judge.
        base: the base model's name; a run without a paid service shows this model's price on a service.
        judges: the flags that name judges.
        override: the price from `--price`, for all models.
    """

    models: Mapping[str, str]
    base: str
    judges: tuple[str, ...] = ()
    override: Price | None = None

    @classmethod
    def of_models(cls, models: Models, price: TokenPrices | None) -> "Prices":
        """The prices of a run's models.

        Args:
            price: of `--price`, which holds for all of them.
        """
        base, interpreter = models.base, models.interpreter
        paid = {"method": base.model} if engine_kind(base.engine).paid else {}
        if paid and models.instruct.model is not None:
            paid[INSTRUCT] = models.instruct.model
        if interpreter.other and engine_kind(interpreter_engine(interpreter)).paid:
            paid["interpreter"] = engine_prefix(interpreter.name)[1]
        paid |= {flag: one.judge.name for flag, one in models.judges.items() if one.judge.kind.served}
        override = None if price is None else Price(price.read, price.sampled, price.trained, "--price")
        return cls(paid, base.model, tuple(models.judges), override)

    def of_model(self, model: str) -> Price | None:
        """The price of a model, from `--price` or from the packaged table; None if unknown."""
        if self.override is not None:
            return self.override
        table = tomllib.loads((resources.files("cai_base") / "data" / "prices.toml").read_text(encoding="utf-8"))
        row = table.get(model)
        if row is None:
            return None
        return Price(row["prefill"], row["sample"], row["train"], f"{row['source']}, {row['date']}")

    def of_work(self, work: str) -> Price | None:
        """The price for the work of a phase or a judge; for a run without a paid service, the base model's price on
        one."""
        models = self.models or {"method": self.base}
        owner = work if work in (INSTRUCT, "interpreter", *self.judges) else "method"
        return self.of_model(models[owner]) if owner in models else FREE

    def dollars(self, usages: Mapping[str, Usage]) -> float | None:
        """The total cost of all phases; None if a price is unknown."""
        total = 0.0
        for work, usage in usages.items():
            price = self.of_work(work)
            if price is None:
                return None
            total += price.of(usage)
        return round(total, 6)

    @property
    def unknown(self) -> list[str]:
        """The paid models without a known price."""
        return [model for model in self.models.values() if self.of_model(model) is None]

    def check_limit(self, max_cost: float | None) -> None:
        """Raise UserError if the run has a cost limit, and one of its models has no known price."""
        if max_cost is not None and self.unknown:
            raise UserError(
                f"--max-cost: no price is known for {self.unknown[0]}; give --price, see cai-base cost --help"
            )
