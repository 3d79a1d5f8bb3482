"""What a run has spent, as `manifest.json`, `spending.json` and `usage.json` hold it."""

from collections.abc import Mapping

from cai_base.records.stored import Stored


class TokensUsed(Stored):
    """Tokens trained on, read (prompts and forward passes alone) and sampled."""

    trained: int
    prefilled: int
    sampled: int


class Live(Stored):
    """What is done between two stored units, as `live.json` holds it for `watch`.

    Attributes:
        shares: how much of each part of the run is done.
        seconds: spent so far, by part.
    """

    shares: Mapping[str, float]
    seconds: Mapping[str, float]


class Spending(Stored):
    """Tokens and money.

    Attributes:
        tokens: by phase and seed; the base model's are under `base`, another model's under its work.
        again: of work that was not stored when the run stopped, and was done a second time.
        dollars: None where no service is paid or a price is unknown.
    """

    tokens: Mapping[str, Mapping[str, TokensUsed]]
    again: TokensUsed
    dollars: float | None


NOTHING = Spending(tokens={}, again=TokensUsed(trained=0, prefilled=0, sampled=0), dollars=0.0)
"""The spending of a run that begins."""
