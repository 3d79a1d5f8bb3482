"""The interpreter: the model that reads the constitution, that is critiques, revises and compares."""

from dataclasses import dataclass

from cai_base.engines import Adapter, Engine


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The model that critiques, revises and compares.

    Attributes:
        engine: with that model.
        own: whether every adapter interprets for itself; else all share `adapter`.
        adapter: whose model it is; None is the engine's base model.
    """

    engine: Engine
    own: bool = False
    adapter: Adapter | None = None

    def model(self, adapter: Adapter | None) -> Adapter | None:
        """The adapter that interprets for this one."""
        return adapter if self.own else self.adapter


def itself(engine: Engine) -> Interpreter:
    """Every adapter interprets for itself."""
    return Interpreter(engine, own=True)
