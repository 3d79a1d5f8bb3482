"""Chat with the arms of a finished run side by side, or with one model, each in its own layout."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cai_base import arms as all_arms
from cai_base import randomness
from cai_base.dialogue import STOPS, Dialogue, Layout, Turns, prompt_tokens
from cai_base.engines import Adapter, Datum, Engine, Sample, SampleRequest
from cai_base.errors import UserError
from cai_base.evaluation.tasks import LoadedArm
from cai_base.inputs.constitution import Principle
from cai_base.progress import Progress
from cai_base.run.finished_run import available_arms, check_arms, load_arms
from cai_base.settings.choices import ModelChoice
from cai_base.settings.validation import stored_settings
from cai_base.store import Run


@dataclass(frozen=True, slots=True)
class Speaker:
    """A model to chat with.

    Attributes:
        arm: the arm's name; `model` for a model outside a run.
        seed: the run's seed.
        adapter: its adapter in the engine; None for the engine's model without an adapter.
        layout: the layout of its prompts.
        name: `arm`, followed by `:seed` if there are several seeds of the arm.
    """

    arm: str
    seed: int
    engine: Engine
    adapter: Adapter | None
    layout: Layout
    name: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are sampled: at `temperature`, of at most `max_tokens`, with the random stream of `seed`."""

    temperature: float
    max_tokens: int
    seed: int


TextListener = Callable[[Speaker, str], None]
"""Called with a speaker's growing answer: the whole text so far that no later token can change."""


def speakers_of_run(
    directory: Path,
    progress: Progress,
    *,
    names: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    threads: int | None = None,
) -> list[Speaker]:
    """The models of a finished run.

    Args:
        names: names of arms; by default all arms that the run evaluated.
        seeds: by default all seeds.
        threads: CPU threads; by default as in the run.

    Raises:
        UserError: the run is not finished, or it has no such arm or seed.
    """
    settings = stored_settings(Run.open(directory))
    check_arms(names or (), available_arms(settings.evaluated_arms, settings.base_model), f"{directory}:")
    for name in names or ():
        if all_arms.arm(name).inference == "revision":
            raise UserError(f"{name}: critiques and revises its answers, so it cannot chat; leave it out")
    if names is None:
        names = [name for name in settings.evaluated_arms if all_arms.arm(name).inference != "revision"]
    for seed in seeds or ():
        if seed not in settings.seed_numbers:
            have = ", ".join(map(str, settings.seed_numbers))
            raise UserError(f"--seed {seed}: {directory} has no such seed; it has {have}")
    selection = [seed for seed in settings.seed_numbers if seeds is None or seed in seeds]
    arms = list(load_arms(directory, progress, names, threads))
    speakers = [
        Speaker(arm.name, seed, arm.engine, arm.models[seed], arm.layout, f"{arm.name}:{seed}")
        for arm in arms
        for seed in (selection[:1] if all_arms.arm(arm.name).one_model else selection)
        if seed in arm.models
    ]
    return [_named(one, speakers) for one in speakers]


def speakers_of_arm(arm: LoadedArm) -> list[Speaker]:
    """A model outside a run, as the only speaker."""
    (seed, adapter), *_ = arm.models.items()
    return [Speaker(arm.name, seed, arm.engine, adapter, arm.layout, arm.name)]


def default_arms(evaluated: Sequence[str], base: ModelChoice) -> list[str]:
    """The default arms: all but the controls, `instruct` last."""
    names = [name for name in available_arms(evaluated, base) if not all_arms.arm(name).control]
    return sorted(names, key=lambda name: name == all_arms.INSTRUCT)


def _named(speaker: Speaker, others: Sequence[Speaker]) -> Speaker:
    alone = sum(one.arm == speaker.arm for one in others) == 1
    name = speaker.arm if alone else speaker.name
    return Speaker(speaker.arm, speaker.seed, speaker.engine, speaker.adapter, speaker.layout, name)


def request(speaker: Speaker, prompt: str, before: Turns, sampling: Sampling) -> SampleRequest:
    """The engine's request for a speaker's answer.

    Raises:
        UserError: the prompt does not fit the model's context.
    """
    tokens = speaker.layout.question_tokens(speaker.engine.tokenizer, prompt, before)
    check_room(speaker.engine, len(tokens), sampling.max_tokens)
    return SampleRequest(
        speaker.adapter, tokens, sampling.max_tokens, sampling.temperature, speaker.layout.stops, sampling.seed
    )


def check_room(engine: Engine, prompt: int, answer: int) -> None:
    """Check that a prompt and an answer of this many tokens fit the model's context.

    Raises:
        UserError: they do not fit.
    """
    if prompt + answer > engine.context_length:
        raise UserError(
            f"the prompt has {prompt} tokens including the text before it, and the answer may have {answer}: more than "
            f"the {engine.context_length} of the model's context; give a shorter prompt or a shorter answer"
        )


def answers(
    speakers: Sequence[Speaker],
    prompt: str,
    sampling: Sampling,
    before: Mapping[str, Turns] | None = None,
    listener: TextListener | None = None,
) -> dict[str, Sample]:
    """Every speaker's answer to a prompt, by the speaker's name. Speakers on one engine are sampled in one batch.

    Args:
        before: each speaker's earlier turns.

    Raises:
        UserError: the prompt does not fit a model's context.
    """
    requests = {one.name: request(one, prompt, (before or {}).get(one.name, ()), sampling) for one in speakers}
    return _draw(speakers, requests, listener)


def critiques(
    speakers: Sequence[Speaker],
    prompt: str,
    responses: Mapping[str, str],
    principle: Principle,
    sampling: Sampling,
    listener: TextListener | None = None,
) -> dict[str, Sample]:
    """Each speaker's critique of its response under a principle, as in a revision chain."""
    texts = {one.name: _dialogue(one).critique(prompt, responses[one.name], principle) for one in speakers}
    return _continue(speakers, texts, sampling, listener)


def revisions(
    speakers: Sequence[Speaker],
    prompt: str,
    responses: Mapping[str, str],
    principle: Principle,
    criticism: Mapping[str, str],
    sampling: Sampling,
    listener: TextListener | None = None,
) -> dict[str, Sample]:
    """Each speaker's revision of its response after its critique, as in a revision chain."""
    texts = {
        one.name: _dialogue(one).revision(prompt, responses[one.name], principle, criticism[one.name])
        for one in speakers
    }
    return _continue(speakers, texts, sampling, listener)


def why(
    speakers: Sequence[Speaker], prompt: str, responses: Mapping[str, str], before: Mapping[str, Turns] | None = None
) -> dict[str, dict[str, float | None]]:
    """The mean log-probability per token, in nats, of each answer under each speaker.

    Args:
        responses: the answers, by the name of the speaker that gave them.
        before: each speaker's earlier turns, which precede the answer.

    Returns:
        For each answer, by the name of its speaker, the mean under each speaker; None for an empty answer. The end is
        not counted, because a chat model ends its answers with another token.
    """
    table: dict[str, dict[str, float | None]] = {name: {} for name in responses}
    for reader in speakers:
        data, names = [], []
        for name, response in responses.items():
            prompt_part, tokens = reader.layout.answer_tokens(
                reader.engine.tokenizer, prompt, response, (before or {}).get(reader.name, ())
            )
            tokens = tokens[: reader.engine.context_length - len(prompt_part)]
            table[name][reader.name] = None
            if response and tokens:
                weights = (*[0.0] * len(prompt_part), *[1 / len(tokens)] * len(tokens))
                data.append(Datum((*prompt_part, *tokens), weights))
                names.append(name)
        means = reader.engine.compute_logprobs({reader.adapter: data})[reader.adapter] if data else []
        for name, mean in zip(names, means, strict=True):
            table[name][reader.name] = mean
    return table


def draw_seed(base: int, turn: int) -> int:
    """The seed for sampling a turn, from the seed of the conversation."""
    return randomness.seed(base, "chat", turn)


def _dialogue(speaker: Speaker) -> Dialogue:
    if not isinstance(speaker.layout, Dialogue):
        raise UserError(f"{speaker.name}: uses its chat template; critiques need the few-shot dialogue of a base model")
    return speaker.layout


def _continue(
    speakers: Sequence[Speaker], texts: Mapping[str, str], sampling: Sampling, listener: TextListener | None
) -> dict[str, Sample]:
    requests = {}
    for one in speakers:
        tokens = prompt_tokens(one.engine.tokenizer, texts[one.name])
        check_room(one.engine, len(tokens), sampling.max_tokens)
        requests[one.name] = SampleRequest(
            one.adapter, tokens, sampling.max_tokens, sampling.temperature, STOPS, sampling.seed
        )
    return _draw(speakers, requests, listener)


def _draw(
    speakers: Sequence[Speaker], requests: Mapping[str, SampleRequest], listener: TextListener | None
) -> dict[str, Sample]:
    samples: dict[str, Sample] = {}
    engines = {id(one.engine): one.engine for one in speakers}
    for engine in engines.values():
        group = [one for one in speakers if one.engine is engine]

        def hear(number: int, tokens: tuple[int, ...], group: list[Speaker] = group, engine: Engine = engine) -> None:
            assert listener is not None
            speaker = group[number]
            listener(speaker, certain_text(engine, requests[speaker.name].stop, tokens))

        of_engine = engine.sample([requests[one.name] for one in group], hear if listener is not None else None)
        samples.update({one.name: sample for one, sample in zip(group, of_engine, strict=True)})
    return {one.name: samples[one.name] for one in speakers}


def certain_text(engine: Engine, stops: Sequence[str], tokens: Sequence[int]) -> str:
    """The part of the text of these tokens that no further token can change.

    A possible beginning of a stop string, and the bytes of an incomplete character, are left out.
    """
    at_end = bool(tokens) and tokens[-1] in engine.tokenizer.eos
    text = engine.tokenizer.decode(tokens[:-1] if at_end else tokens)
    found_at = [at for stop in stops if (at := text.find(stop)) >= 0]
    if found_at:
        return text[: min(found_at)]
    held = max(
        (n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])),
        default=0,
    )
    text = text[: len(text) - held] if held else text
    return text.rstrip("\ufffd")
