"""From settings to engines: the base model's, and the one in which the instruct model answers."""

import json
from pathlib import Path

from cai_base import embedded
from cai_base.dialogue import chat_tokens
from cai_base.embedded import EMBEDDED
from cai_base.engines import Adapter, Engine, Lora
from cai_base.errors import UserError
from cai_base.progress import Progress
from cai_base.settings.schema import RunSettings
from cai_base.store import Record

INSTRUCT = "instruct"
"""The adapter's name where the instruct model is one."""
ASKED = "model"
"""The adapter's name where a model that is only asked is one."""


def load_engine(settings: RunSettings, progress: Progress, found: Record | None = None) -> Engine:
    """The engine that the settings name, with the base model in it, as it was `found` by the run that goes on."""
    lora = Lora(settings.lora.rank, settings.lora.alpha)
    if settings.engine == "tinker":
        tokenizer = settings.tokenizer or (embedded.weights() if settings.model == EMBEDDED else None)
        return _service(settings, progress, settings.model, lora, tokenizer, "--model")
    from cai_base.engines.local import LocalEngine  # imported here: torch takes seconds, and --help should not

    longest = 2 * settings.revision.response_tokens + settings.revision.critique_tokens + 512
    model = _base(settings)
    return LocalEngine(model, lora, name=settings.model, sequence_length=longest, threads=settings.threads, found=found)


def load_served_chat_model(settings: RunSettings, name: str, flag: str, progress: Progress) -> Engine:
    """A chat model that a Tinker service serves, to be asked in its own template, never trained.

    Raises:
        UserError: it is not served, or its tokenizer, which `flag`-tokenizer names, has no chat template.
    """
    folder = {"--instruct": settings.instruct_tokenizer, "--judge": settings.judge_tokenizer}
    engine = _service(settings, progress, name, None, folder.get(flag, settings.second_judge_tokenizer), flag)
    try:
        chat_tokens(engine.tokenizer, (), "Hello!")
    except UserError as error:
        raise UserError(f"{flag}-tokenizer {error}") from error
    return engine


def _service(
    settings: RunSettings, progress: Progress, model: str, lora: Lora | None, tokenizer: Path | None, flag: str
) -> Engine:
    from cai_base.engines.tinker import TinkerEngine

    return TinkerEngine(
        model,
        lora,
        url=settings.tinker_url,
        tokenizer=tokenizer,
        timeout=settings.tinker_timeout,
        say=progress.say,
        flag=flag,
    )


def check_instruct(settings: RunSettings, progress: Progress) -> None:
    """See, before any work, that the instruct arm can be evaluated at its end. No weights are loaded.

    Raises:
        UserError: there is no such model, its adapter is of no form that is read or of another base model, or its
            tokenizer has no chat template.
    """
    if settings.engine == "tinker":
        load_instruct(settings, progress)
        return
    from cai_base.engines.local import model, peft_format

    name = _instruct(settings)
    if not _is_adapter(name):
        model.check_folder(name, "--instruct")
    else:
        peft_format.shape(Path(name))
        if settings.model == EMBEDDED:
            embedded.check_sibling(Path(name), embedded.weights())
    model.check_chat(name, "--instruct", [{"role": "user", "content": "Hello!"}])


def load_instruct(settings: RunSettings, progress: Progress) -> tuple[Engine, Adapter | None]:
    """An engine with the instruct model in it, and its adapter there; None if it is a whole model.

    Raises:
        UserError: as `check_instruct`, or the model cannot be loaded.
    """
    if settings.engine == "tinker":
        return load_served_chat_model(settings, _instruct(settings), "--instruct", progress), None
    from cai_base.engines.local import LocalEngine, peft_format

    check_instruct(settings, progress)  # again: a run may be resumed after its files have changed
    name = _instruct(settings)
    longest = settings.evaluation.response_tokens + 512
    if not _is_adapter(name):
        none = Lora(rank=1, alpha=1.0)
        threads = settings.threads
        return LocalEngine(name, none, sequence_length=longest, threads=threads, flag="--instruct"), None
    engine = LocalEngine(
        _base(settings),
        peft_format.shape(Path(name)),
        name=settings.model,
        sequence_length=longest,
        threads=settings.threads,
        tokenizer_of=name,
    )
    try:
        engine.load({INSTRUCT: Path(name)}, optimizer=False)
    except ValueError as error:
        raise UserError(f"--instruct {error}; give an adapter that was trained on {settings.model}") from error
    return engine, INSTRUCT


def base_of(adapter: Path) -> str | None:
    """The base model that a PEFT adapter names, by its folder or hub id; None if `adapter` is no PEFT adapter.

    Raises:
        UserError: it is one of a variety that is not read here, or names no base model.
    """
    if not _is_adapter(str(adapter)):
        return None
    from cai_base.engines.local import peft_format

    peft_format.shape(adapter)
    path = adapter / "adapter_config.json"
    found = json.loads(path.read_bytes()).get("base_model_name_or_path")
    if not isinstance(found, str) or not found:
        raise UserError(f"{path}: base_model_name_or_path names no base model; give it with --base")
    return found


def load_any(
    settings: RunSettings, adapter: Path | None, flag: str, progress: Progress
) -> tuple[Engine, Adapter | None]:
    """An engine with a model that is only asked, never trained, and its adapter there; None if it is a whole model.

    Args:
        settings: with the model, or the base model of the adapter.
        adapter: folder of a PEFT adapter, made here or elsewhere.
        flag: what named the model, for messages.
        progress: where it is said.

    Raises:
        UserError: the model cannot be loaded, or the adapter is of another one.
    """
    progress.say(f"Loading {settings.model}" + (f" with the adapter {adapter}" if adapter else ""))
    if settings.engine == "tinker":
        if adapter is not None:
            raise UserError(f"{adapter}: a Tinker service loads no PEFT adapter; leave --engine tinker out")
        tokenizer = settings.tokenizer or (embedded.weights() if settings.model == EMBEDDED else None)
        return _service(settings, progress, settings.model, None, tokenizer, flag), None
    from cai_base.engines.local import LocalEngine, peft_format

    own = adapter is not None and (adapter / "tokenizer_config.json").is_file()
    engine = LocalEngine(
        _base(settings),
        peft_format.shape(adapter) if adapter else Lora(rank=1, alpha=1.0),
        name=settings.model,
        sequence_length=settings.evaluation.response_tokens + 512,
        threads=settings.threads,
        tokenizer_of=str(adapter) if own else None,
        flag=flag,
    )
    if adapter is None:
        return engine, None
    try:
        engine.load({ASKED: adapter}, optimizer=False)
    except ValueError as error:
        raise UserError(f"{error}; it adapts layers that are not read here, or another model: give --base") from error
    return engine, ASKED


def check_chat_model(name: str, flag: str, *, judged: bool) -> None:
    """See, before any work, that a chat model can be asked in its own template. No weights are loaded.

    Args:
        name: its folder or hub id.
        flag: what named it, for messages.
        judged: whether it is a guard, whose template must show it an answer beside the question.

    Raises:
        UserError: there is no such model, or its tokenizer has no chat template, or none that shows these turns.
    """
    from cai_base.engines.local import model

    model.check_folder(name, flag)
    answer = [{"role": "assistant", "content": "Goodbye!"}] if judged else []
    model.check_chat(name, flag, [{"role": "user", "content": "Hello!"}, *answer])


def load_chat_model(settings: RunSettings, name: str, flag: str, progress: Progress) -> Engine:
    """An engine with a chat model in it, such as a judge.

    Raises:
        UserError: as `check_chat_model`, or the model cannot be loaded.
    """
    from cai_base.engines.local import LocalEngine

    progress.say(f"Loading {name}")
    longest = settings.judging.max_tokens + 2048
    none = Lora(rank=1, alpha=1.0)
    return LocalEngine(name, none, sequence_length=longest, threads=settings.threads, flag=flag)


def _base(settings: RunSettings) -> str:
    return str(embedded.weights()) if settings.model == EMBEDDED else settings.model


def _instruct(settings: RunSettings) -> str:
    return settings.instruct or str(embedded.sibling())


def _is_adapter(name: str) -> bool:
    return (Path(name) / "adapter_config.json").is_file()
