"""Every engine, defined once: its name in `--engine`, its package, and what the run must know of it.

A new engine is a package that keeps the protocol of `cai_base.engines`, and a row here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cai_base.errors import UserError
from cai_base.text import either


@dataclass(frozen=True, slots=True)
class EngineKind:
    """One engine that a run can use.

    Attributes:
        package: the module whose function `construct` makes the engine from an `engines.EngineSpec`.
        served: whether models and states are on a service. Then `save` stores references to states instead of the
            states, and PEFT adapters cannot be loaded.
        paid: whether its tokens cost money.
    """

    package: str
    served: bool
    paid: bool


LOCAL: Final = "local"
"""The engine in this process: the default, and that of the embedded model and of local judges."""
TINKER: Final = "tinker"
"""The engine to which `--tinker-url` leads."""

ENGINES: Mapping[str, EngineKind] = {
    LOCAL: EngineKind("cai_base.engines.local", served=False, paid=False),
    TINKER: EngineKind("cai_base.engines.tinker", served=True, paid=True),
}
"""Every engine by its name in `--engine`."""

SERVED = f"--engine {either([name for name, kind in ENGINES.items() if kind.served])}"
"""The engines whose models are on a service, for messages."""
PAID = f"--engine {either([name for name, kind in ENGINES.items() if kind.paid])}"
"""The engines whose tokens cost money, for messages."""


def engine_kind(name: str) -> EngineKind:
    """The engine of this name.

    Raises:
        UserError: there is no such engine.
    """
    if name not in ENGINES:
        raise UserError(f"--engine {name}: there is no such engine; choose from {', '.join(ENGINES)}")
    return ENGINES[name]


def engine_prefix(model: str) -> tuple[str | None, str]:
    """The engine on a service that a model's name begins with, as in `tinker:MODEL`, and the name without it."""
    engine, colon, name = model.partition(":")
    return (engine, name) if colon and engine in ENGINES and ENGINES[engine].served else (None, model)
