"""Loads the models that settings name into engines, and attributes errors to flags.

Engines raise `EngineError`, which names an argument of the engine. Here the argument is replaced by the flag, or the
field of a file, that the user wrote.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import get_args

from cai_base import embedded
from cai_base.arms import INSTRUCT
from cai_base.dialogue import chat_tokens
from cai_base.embedded import EMBEDDED
from cai_base.engines import Adapter, Datum, Engine, EngineError, EngineSpec, Findings, Lora, Tokenizer
from cai_base.engines.files import ADAPTER_CONFIG
from cai_base.errors import UserError
from cai_base.progress import Progress
from cai_base.reading import check_model_files, quote
from cai_base.settings.choices import Host, InstructChoice, InterpreterChoice, JudgeChoice, ModelChoice
from cai_base.settings.engines import LOCAL, EngineKind, engine_kind, engine_prefix
from cai_base.settings.values import Dtype
from cai_base.text import either

SIBLING = f"{EMBEDDED}:instruct"
"""The value of `--interpreter` for the embedded model's instruct sibling."""
_QUESTION = {"role": "user", "content": "Hello!"}
_ANSWER = {"role": "assistant", "content": "Goodbye!"}


@dataclass(frozen=True, slots=True)
class Source:
    """One model to load into an engine.

    Attributes:
        model: its name, as the user gave it: folder, GGUF file, hub id, the embedded model, or its name on a service.
        longest: tokens of the longest sequence that it will process.
        names: the flag or field for each argument of an engine (see `EngineError`), such as `--judge` for `model`.
        lora: rank and alpha of the adapters to train; None if the model is not trained.
        adapters: how many adapters are trained together.
        adapter: folder of a PEFT adapter.
        adapter_name: the adapter's name in the engine.
        tokenizer: folder of the tokenizer; None for the model's own.
        findings: the stored findings of a resumed run's engine about the model.
        chat: whether it must have a chat template.
        thinking: False switches its thinking off, if its chat template has a switch.
    """

    model: str
    longest: int
    names: Mapping[str, str]
    lora: Lora | None = None
    adapter: Path | None = None
    adapter_name: Adapter = "model"
    tokenizer: Path | None = None
    findings: Findings | None = None
    chat: bool = False
    thinking: bool = True
    adapters: int = 1


def load_model(
    model: str | Path = EMBEDDED,
    lora: Lora | None = None,
    *,
    longest: int = 1024,
    threads: int = 0,
    dtype: Dtype = "auto",
) -> Engine:
    """Load a model into this process for training and sampling, on CUDA if there is a GPU.

    Args:
        model: folder or hub id of a causal language model in Hugging Face layout, a GGUF file, or the embedded one.
        lora: rank and alpha of the adapters to train; None if the model is not trained.
        longest: tokens of the longest sequence that it will process; packing is checked at that length.
        threads: CPU threads; 0 leaves the choice to PyTorch.
        dtype: the precision: float32, bfloat16, or auto, which is bfloat16 on CUDA and float32 on a CPU.

    Raises:
        UserError: it cannot be loaded, the rank is higher than its layers allow, a number is out of range, or the
            precision is unknown.
    """
    for name, value, least in (("longest", longest, 1), ("threads", threads, 0)):
        if value < least:
            raise UserError(f"{name} {value}: must be at least {least}")
    if dtype not in get_args(Dtype):
        raise UserError(f"dtype {dtype!r}: must be {either(get_args(Dtype))}")
    return _load(LOCAL, Host(threads, None, 0.0, dtype), Source(str(model), longest, {}, lora), Progress.quiet())[0]


def load_engine(base: ModelChoice, progress: Progress, findings: Findings | None = None) -> Engine:
    """The engine with the base model loaded.

    Args:
        base: `RunSettings.base_model`.
        progress: shows what the engine waits for.
        findings: the stored `engine.findings()` of a resumed run; None for a new run.

    Raises:
        UserError: the model cannot be loaded, or is not the one with which the run began.
    """
    lora = None if base.lora is None else Lora(base.lora.rank, base.lora.alpha)
    tokenizer, count = _tokenizer(base), base.adapters
    source = Source(base.model, base.longest, _NAMES, lora, tokenizer=tokenizer, findings=findings, adapters=count)
    return _load(base.engine, base.host, source, progress)[0]


def load_tokenizer(base: ModelChoice) -> Tokenizer:
    """The base model's tokenizer, without an engine or a service.

    Raises:
        UserError: it cannot be loaded.
    """
    from cai_base.engines import tokenizer

    folder = _tokenizer(base)
    with named(_NAMES | {"tokenizer": "--model" if folder is None else "--tokenizer"}):
        if folder is not None and not folder.is_dir():
            raise EngineError("tokenizer", folder, "there is no such folder", "give one with tokenizer.json")
        return tokenizer.load_tokenizer(str(folder or model_files(base.model)))


def check_instruct(instruct: InstructChoice, progress: Progress) -> None:
    """Check, before any work, that the instruct arm can be evaluated at its end.

    Raises:
        UserError: there is no such model, its adapter has an unsupported format or another base model, or its
            tokenizer has no chat template.
    """
    source = _instruct(instruct)
    _check_chat(instruct.base.engine, instruct.base.host, source, [_QUESTION], progress)
    if source.adapter is not None and instruct.base.model == EMBEDDED:
        embedded.check_sibling(source.adapter, embedded.weights())


def load_instruct(instruct: InstructChoice, progress: Progress) -> tuple[Engine, Adapter | None]:
    """An engine with the instruct model loaded, and its adapter in the engine; None if it is a full model.

    Raises:
        UserError: as `check_instruct`, or the model cannot be loaded.
    """
    base = instruct.base
    if not engine_kind(base.engine).served:
        check_instruct(instruct, progress)  # again, because files may have changed before a run was resumed
    mismatch = f"give an adapter that was trained on {base.model}"
    engine, adapter = _load(base.engine, base.host, _instruct(instruct), progress, mismatch)
    engine.tokenizer.end_turns()
    return engine, adapter


def interpreter_engine(choice: InterpreterChoice) -> str:
    """The name of the engine for a separate interpreter."""
    embedded_model = choice.name in (EMBEDDED, SIBLING)
    return engine_prefix(choice.name)[0] or (LOCAL if embedded_model else choice.base.engine)


def load_interpreter(
    choice: InterpreterChoice, progress: Progress, findings: Findings | None = None
) -> tuple[Engine, Adapter | None]:
    """An engine with a separate interpreter loaded, and its adapter in the engine; None if it is a full model.

    Args:
        choice: `RunSettings.interpreter_model`, a model other than the run's.
        progress: shows what is being loaded.
        findings: the stored `engine.findings()` of a resumed run; None for a new run.

    Raises:
        UserError: the model cannot be loaded, or is not the one with which the run began.
    """
    name, engine, longest = choice.name, interpreter_engine(choice), choice.base.longest
    progress.say(f"Loading the interpreter {name}")
    names = _NAMES | {"model": "--interpreter", "adapter": "--interpreter", "tokenizer": "--interpreter"}
    if name == SIBLING or (_is_adapter(name) and not engine_kind(engine).served):
        adapter = embedded.sibling() if name == SIBLING else Path(name)
        base = EMBEDDED if name == SIBLING else choice.base.model
        tokenizer = adapter if (adapter / "tokenizer_config.json").is_file() else None
        source = Source(base, longest, names, None, adapter, "interpreter", tokenizer, findings)
    else:
        tokenizer = embedded.weights() if name == EMBEDDED else None
        source = Source(engine_prefix(name)[1], longest, names, tokenizer=tokenizer, findings=findings)
    mismatch = f"give an adapter that was trained on {choice.base.model}"
    return _load(engine, choice.base.host, source, progress, mismatch)


def load_any(choice: ModelChoice, adapter: Path | None, flag: str, progress: Progress) -> tuple[Engine, Adapter | None]:
    """An engine with a model only for sampling, and its adapter in the engine; None if it is a full model.

    Args:
        choice: the model, or the base model of the adapter.
        adapter: folder of a PEFT adapter, from any source.
        flag: the flag that named the model, for messages.
        progress: shows what is being loaded.

    Raises:
        UserError: the model cannot be loaded, or the adapter belongs to another model.
    """
    progress.say(f"Loading {choice.model}" + (f" with the adapter {adapter}" if adapter else ""))
    own = adapter is not None and (adapter / "tokenizer_config.json").is_file()
    source = Source(
        choice.model,
        choice.longest,
        _NAMES | {"model": flag, "adapter": ""} | ({"tokenizer": ""} if own else {}),
        adapter=adapter,
        tokenizer=adapter if own else _tokenizer(choice),
        thinking=choice.thinking,
    )
    mismatch = "it adapts unsupported layers, or belongs to another model: give --base"
    return _load(choice.engine, choice.host, source, progress, mismatch)


def check_chat_model(choice: JudgeChoice, progress: Progress) -> None:
    """Check, before any work, that a judge's chat model can be prompted in its own template.

    Args:
        choice: the judge, which runs in an engine.
        progress: shows what a service waits for.

    Raises:
        UserError: there is no such model, its tokenizer has no chat template, or the template does not contain the
            question (for a guard: question and answer).
    """
    messages = [_QUESTION, _ANSWER] if choice.judge.kind.grades == "guard" else [_QUESTION]
    _check_chat(_engine_of(choice), choice.host, _judge(choice), messages, progress)


def load_chat_model(choice: JudgeChoice, progress: Progress) -> Engine:
    """An engine with a judge's chat model loaded.

    Raises:
        UserError: as `check_chat_model`, or the model cannot be loaded.
    """
    name = _engine_of(choice)
    if not engine_kind(name).served:
        progress.say(f"Loading {choice.judge.name}")
    engine = _load(name, choice.host, _judge(choice), progress)[0]
    engine.tokenizer.end_turns()
    return engine


def base_of(adapter: Path) -> str | None:
    """The base model that a PEFT adapter names, by its folder or hub id; None if `adapter` is not a PEFT adapter.

    Raises:
        UserError: the adapter is of an unsupported variety, or names no base model.
    """
    if not _is_adapter(str(adapter)):
        return None
    from cai_base.engines.local import peft_format

    peft_format.shape(adapter)
    path = adapter / ADAPTER_CONFIG
    config = json.loads(path.read_bytes())
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(base, str) or not base:
        raise UserError(f"{path}: base_model_name_or_path names no base model; give it with --base")
    if revision not in (None, "main") and not Path(base).exists():
        raise UserError(
            f"{path}: revision is {quote(revision)}; other versions of {base} are not downloaded; give the folder of "
            "that version with --base"
        )
    return base


@contextmanager
def named(names: Mapping[str, str], mismatch: str | None = None) -> Iterator[None]:
    """A context in which an `EngineError` becomes a `UserError` with the user's flag or field.

    Args:
        names: the flag or field for each argument of an engine; another argument keeps its name.
        mismatch: the remedy for an adapter of another model, to replace the engine's.

    Raises:
        UserError: an `EngineError` was raised.
    """
    try:
        yield
    except EngineError as error:
        remedy = mismatch if error.argument == "adapter" else None
        raise UserError(error.message_for(names.get(error.argument, error.argument), remedy)) from error


_NAMES = {
    "model": "--model",
    "tokenizer": "--tokenizer",
    "rank": "--lora.rank",
    "alpha": "--lora.alpha",
    "url": "--tinker-url",
    "engine": "--engine",
}
"""The flag for each argument of an engine with the base model."""


def _load(
    engine: str, host: Host, source: Source, progress: Progress, mismatch: str | None = None
) -> tuple[Engine, Adapter | None]:
    """An engine with the model of `source` loaded, and its adapter in the engine; used by every load function."""
    kind = engine_kind(engine)
    if source.adapter is not None and kind.served:
        raise UserError(f"{source.adapter}: --engine {engine} cannot load a PEFT adapter; leave --engine {engine} out")
    _check_files(source)
    with named(source.names, mismatch):
        instance = _construct(kind, host, source, progress)
        if source.chat and kind.served:  # for other engines, checked before loading the weights
            chat_tokens(instance.tokenizer, (), _QUESTION["content"])
        if source.adapter is None:
            return instance, None
        instance.load({source.adapter_name: source.adapter}, optimizer=False)
        _check_outputs(instance, source.adapter_name, source.adapter)
        return instance, source.adapter_name


def _check_outputs(engine: Engine, name: Adapter, folder: Path) -> None:
    """Raise EngineError if a text has no finite log-probability under an adapter: its weights are far too large."""
    tokens = (*engine.tokenizer.bos, *engine.tokenizer.encode("Hello! How are you?"))
    text = Datum(tokens, (0.0, *[1.0] * (len(tokens) - 1)))
    (logprob,) = engine.compute_logprobs({name: [text]})[name]
    if not math.isfinite(logprob):
        reason = f"its outputs are not finite (the log-probability of a short text is {logprob})"
        raise EngineError("adapter", folder, reason, "give a whole copy of an adapter of this model")


def _construct(kind: EngineKind, host: Host, source: Source, progress: Progress) -> Engine:
    spec = EngineSpec(
        source.model if kind.served else model_files(source.model),
        source.model,
        source.longest,
        source.lora,
        source.adapter,
        source.tokenizer,
        source.findings,
        source.thinking,
        host.threads,
        host.url,
        host.timeout,
        progress.say,
        source.adapters,
        host.dtype,
    )
    engine: Engine = import_module(kind.package).construct(spec)  # imported here: it takes seconds
    return engine


def _check_chat(engine: str, host: Host, source: Source, messages: list[dict[str, str]], progress: Progress) -> None:
    """Check that a model exists and accepts `messages` in its chat template. Weights in local folders are not
    loaded."""
    if engine_kind(engine).served:
        _load(engine, host, source, progress)
        return
    from cai_base.engines import tokenizer
    from cai_base.engines.local import model, peft_format

    _check_files(source)
    with named(source.names):
        if source.adapter is not None:
            peft_format.shape(source.adapter)
        else:
            model.check_folder(model_files(source.model))
        name = str(source.tokenizer or model_files(source.model))
        tokenizer.load_tokenizer(name, thinking=source.thinking).check_chat(messages)


def _check_files(source: Source) -> None:
    """Check that every file of the source's folders can be read, before a library opens them: a FIFO never ends."""
    for folder in (Path(source.model), source.adapter, source.tokenizer):
        if folder is not None and folder.is_dir():
            check_model_files(folder)


def _instruct(instruct: InstructChoice) -> Source:
    """The instruct model: a full model, or an adapter on the base model."""
    name, base = instruct.model or str(embedded.sibling()), instruct.base
    longest, thinking = instruct.longest, instruct.thinking
    if _is_adapter(name) and not engine_kind(base.engine).served:
        names = _NAMES | {"adapter": "--instruct", "tokenizer": "--instruct"}
        adapter = Path(name)
        return Source(
            base.model, longest, names, None, adapter, INSTRUCT, tokenizer=adapter, chat=True, thinking=thinking
        )
    names = _chat_names("--instruct", base.engine)
    return Source(name, longest, names, tokenizer=instruct.tokenizer, chat=True, thinking=thinking)


def _judge(choice: JudgeChoice) -> Source:
    flag = f"--{choice.flag}"
    names = _chat_names(flag, _engine_of(choice)) | {"engine": flag}
    return Source(choice.judge.name, choice.sampling.max_tokens + 2048, names, tokenizer=choice.tokenizer, chat=True)


def _engine_of(choice: JudgeChoice) -> str:
    """The name of the engine for a judge's chat model."""
    return choice.judge.kind.runs or LOCAL


def _chat_names(flag: str, engine: str) -> dict[str, str]:
    """The flags of a chat model. Only a service's model has a flag for its tokenizer."""
    return _NAMES | {"model": flag, "tokenizer": f"{flag}-tokenizer" if engine_kind(engine).served else flag}


def _tokenizer(base: ModelChoice) -> Path | None:
    """The folder of the base model's tokenizer, if the user gave one or the model is embedded; else None."""
    return base.tokenizer or (embedded.weights() if base.model == EMBEDDED else None)


def model_files(model: str) -> str:
    """The folder or hub id with a model's files; for a GGUF file, the folder of its conversion."""
    if embedded.is_embedded(model):
        return str(embedded.weights(model))
    from cai_base.engines.local import gguf

    return gguf.converted(model) if gguf.is_gguf(model) else model


def _is_adapter(name: str) -> bool:
    return (Path(name) / ADAPTER_CONFIG).is_file()
