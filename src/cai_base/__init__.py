"""Constitutional AI from a true base model: SFT, critique and revision, DPO, and an evaluation with intervals.

The names below are the public API (docs/api.md). Each is imported on first use, so that importing the package is fast.
`examples/cai_in_one_file.py` is an example.
"""

import os
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names for type checkers; a test compares
    from cai_base.dialogue import Chat as Chat
    from cai_base.dialogue import Dialogue as Dialogue
    from cai_base.engines import Adam as Adam
    from cai_base.engines import Batch as Batch
    from cai_base.engines import Datum as Datum
    from cai_base.engines import Engine as Engine
    from cai_base.engines import Failed as Failed
    from cai_base.engines import Lora as Lora
    from cai_base.engines import LossValue as LossValue
    from cai_base.engines import Pending as Pending
    from cai_base.engines import Sample as Sample
    from cai_base.engines import SampleRequest as SampleRequest
    from cai_base.engines import Step as Step
    from cai_base.engines import Tokenizer as Tokenizer
    from cai_base.errors import Stopped as Stopped
    from cai_base.errors import UserError as UserError
    from cai_base.evaluation.judges import GroundTruth as GroundTruth
    from cai_base.evaluation.judges import Judge as Judge
    from cai_base.evaluation.judges import Response as Response
    from cai_base.evaluation.tasks.prompts import answer as answer
    from cai_base.experiment import Experiment as Experiment
    from cai_base.experiment import begin as begin
    from cai_base.experiment import resume as resume
    from cai_base.inputs import Inputs as Inputs
    from cai_base.inputs import packaged as packaged
    from cai_base.inputs.constitution import Constitution as Constitution
    from cai_base.inputs.constitution import CritiqueExample as CritiqueExample
    from cai_base.inputs.constitution import Principle as Principle
    from cai_base.inputs.constitution import load_constitution as load_constitution
    from cai_base.inputs.prompts import Example as Example
    from cai_base.inputs.prompts import Prompt as Prompt
    from cai_base.inputs.prompts import load_prompts as load_prompts
    from cai_base.method.dpo import TokenPair as TokenPair
    from cai_base.method.dpo import dpo_batch as dpo_batch
    from cai_base.method.dpo import reference_logprobs as reference_logprobs
    from cai_base.method.dpo import tokenise as tokenise
    from cai_base.method.interpreter import Interpreter as Interpreter
    from cai_base.method.losses import preference_loss as preference_loss
    from cai_base.method.pairs import pairs_of as pairs_of
    from cai_base.method.revision import revise as revise
    from cai_base.method.sft import nll_loss as nll_loss
    from cai_base.method.sft import sft_batch as sft_batch
    from cai_base.method.training import learning_rate as learning_rate
    from cai_base.method.training import trained_datum as trained_datum
    from cai_base.models import load_model as load_model
    from cai_base.progress import Progress as Progress
    from cai_base.records import Answer as Answer
    from cai_base.records import Chain as Chain
    from cai_base.records import Judgement as Judgement
    from cai_base.records import Pair as Pair
    from cai_base.records import Reference as Reference
    from cai_base.records import Round as Round
    from cai_base.records import Verdict as Verdict
    from cai_base.records import Vote as Vote
    from cai_base.settings import RunSettings as RunSettings
    from cai_base.settings import default_settings as default_settings
    from cai_base.settings.schema import Dpo as Dpo
    from cai_base.settings.schema import Evaluation as Evaluation
    from cai_base.settings.schema import Revision as Revision
    from cai_base.settings.schema import Training as Training

__version__ = version("cai-base")

TELEMETRY_OFF = {
    "DO_NOT_TRACK": "1",  # huggingface_hub, transformers, datasets, trackio
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "WANDB_ERROR_REPORTING": "false",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "TINKER_TELEMETRY": "0",  # it would send the tracebacks of our errors
}
"""The environment in which no dependency reports on its use. Libraries read it at import. What the user set
stays."""
for _name, _value in TELEMETRY_OFF.items():
    os.environ.setdefault(_name, _value)

_WHERE = {
    "Adam": "engines",
    "Answer": "records",
    "Batch": "engines",
    "Chain": "records",
    "Chat": "dialogue",
    "Constitution": "inputs.constitution",
    "CritiqueExample": "inputs.constitution",
    "Datum": "engines",
    "Dialogue": "dialogue",
    "Dpo": "settings.schema",
    "Engine": "engines",
    "Evaluation": "settings.schema",
    "Example": "inputs.prompts",
    "Experiment": "experiment",
    "Failed": "engines",
    "GroundTruth": "evaluation.judges",
    "Inputs": "inputs",
    "Interpreter": "method.interpreter",
    "Judge": "evaluation.judges",
    "Judgement": "records",
    "Lora": "engines",
    "LossValue": "engines",
    "Pair": "records",
    "Pending": "engines",
    "Principle": "inputs.constitution",
    "Progress": "progress",
    "Prompt": "inputs.prompts",
    "Reference": "records",
    "Response": "evaluation.judges",
    "Revision": "settings.schema",
    "Round": "records",
    "RunSettings": "settings",
    "Sample": "engines",
    "SampleRequest": "engines",
    "Step": "engines",
    "Stopped": "errors",
    "TokenPair": "method.dpo",
    "Tokenizer": "engines",
    "Training": "settings.schema",
    "UserError": "errors",
    "Verdict": "records",
    "Vote": "records",
    "answer": "evaluation.tasks.prompts",
    "begin": "experiment",
    "default_settings": "settings",
    "dpo_batch": "method.dpo",
    "learning_rate": "method.training",
    "load_constitution": "inputs.constitution",
    "load_model": "models",
    "load_prompts": "inputs.prompts",
    "nll_loss": "method.sft",
    "packaged": "inputs",
    "pairs_of": "method.pairs",
    "preference_loss": "method.losses",
    "reference_logprobs": "method.dpo",
    "resume": "experiment",
    "revise": "method.revision",
    "sft_batch": "method.sft",
    "tokenise": "method.dpo",
    "trained_datum": "method.training",
}
"""The module of each public name."""

__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'cai_base' has no attribute {name!r}")
    return getattr(import_module(f"cai_base.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
