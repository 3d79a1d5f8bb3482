"""Constitutional AI from a true base model: SFT, critique and revision, DPO, and an evaluation with intervals."""

from importlib.metadata import version

__version__ = version("cai-base")
