"""One conversation of `cai-base chat`: the effect of each line, and how answers are shown."""

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cai_base import arms as all_arms
from cai_base import paths
from cai_base.cli.chat import CHAT_USAGE, save_file
from cai_base.dialogue import Dialogue, LayoutName
from cai_base.engines import Sample
from cai_base.errors import UserError
from cai_base.inputs import Inputs
from cai_base.inputs.constitution import Constitution, Principle
from cai_base.progress import Progress
from cai_base.reading import suggestion
from cai_base.run import talk
from cai_base.run.evaluation.targets import Request, is_run, model_target
from cai_base.run.talk import Sampling, Speaker
from cai_base.settings.schema import Evaluation
from cai_base.settings.validation import stored_settings
from cai_base.store import JsonObject, Run, to_lines
from cai_base.text import counted, for_terminal

COLUMN = 28
"""The minimum width of a column. If columns would be narrower, answers are shown below one another."""
INTERPRETER = all_arms.SFT
"""The arm that criticises and revises, if it is loaded: the method's default interpreter."""


@dataclass(frozen=True, slots=True)
class ChatFlags:
    """The flags of `cai-base chat`; None for a flag that was not given."""

    arms: tuple[str, ...] | None
    seed: int | None
    temperature: float | None
    max_tokens: int | None
    threads: int | None
    base: str | None
    layout: LayoutName


def open_conversation(target: str, flags: ChatFlags, progress: Progress) -> "Conversation":
    """Load the speakers.

    Raises:
        UserError: there is no such run, model, arm or seed, or a flag does not apply.
    """
    if is_run(target):
        return _of_run(Path(target), flags, progress)
    for flag, value in (("--arms", flags.arms), ("--seed", flags.seed)):
        if value is not None:
            raise UserError(f"{flag}: {target} is not a run and has no arms or seeds; leave it out")
    threads = () if flags.threads is None else ("--threads", str(flags.threads))
    model = model_target(
        Request(target, "chat", layout=flags.layout, base=flags.base, flags=threads), "chat", progress, judged=False
    )
    (arm,) = model.load(model.names)
    sampling = _sampling(model.settings.evaluation, flags)
    return Conversation(talk.speakers_of_arm(arm), sampling, model.inputs.constitution)


def _of_run(directory: Path, flags: ChatFlags, progress: Progress) -> "Conversation":
    for flag, value in (("--base", flags.base), ("--layout", None if flags.layout == "auto" else flags.layout)):
        if value is not None:
            raise UserError(f"{flag} {value}: applies to a model only; a run's arms use the run's layout")
    settings = stored_settings(Run.open(directory))
    inputs = Inputs.read(directory / paths.INPUTS)
    seed = settings.seed_numbers[0] if flags.seed is None else flags.seed
    names = talk.default_arms(settings.evaluated_arms, settings.base_model) if flags.arms is None else list(flags.arms)
    speakers = talk.speakers_of_run(directory, progress, names=names, seeds=[seed], threads=flags.threads)
    return Conversation(speakers, _sampling(settings.evaluation, flags), inputs.constitution)


def _sampling(evaluation: Evaluation, flags: ChatFlags) -> Sampling:
    temperature = evaluation.temperature if flags.temperature is None else flags.temperature
    return Sampling(temperature, flags.max_tokens or evaluation.response_tokens, flags.seed or 0)


@dataclass(slots=True)
class ChainByHand:
    """A revision chain, step by step: the current response, and its critique before the revision."""

    response: str
    revised: bool = False
    critique: tuple[Principle, str] | None = None


@dataclass
class Conversation:
    """A conversation with the speakers.

    Attributes:
        speakers: in the order of their columns.
        sampling: for all answers; its seed is the seed of the conversation.
        constitution: the source of the principles for `/critique`.
        record: one record per step, for `/save`.
    """

    speakers: Sequence[Speaker]
    sampling: Sampling
    constitution: Constitution
    record: list[JsonObject] = field(default_factory=list)
    turn: int = 0
    prompt: str | None = None
    before: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    replies: dict[str, str] = field(default_factory=dict)
    chain: ChainByHand | None = None

    def __post_init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        width = shutil.get_terminal_size().columns if self._terminal else 100
        self._console = Console(highlight=False, width=width, soft_wrap=not self._terminal)

    def say(self, text: str) -> None:
        """Print a line. It may contain text from a file or a model, so it is escaped."""
        self._console.print(Text(for_terminal(text)))

    def take(self, line: str) -> None:
        """Execute a line: a command or a prompt.

        Raises:
            UserError: the line is wrong.
        """
        if not line.startswith("/"):
            self.before = {}
            self._ask(line)
            return
        command, _, rest = line.strip().partition(" ")
        commands = {
            "/more": self._more,
            "/again": self._again,
            "/critique": self._critique,
            "/revise": self._revise,
            "/principles": self._principles,
            "/why": self._why,
            "/save": self._save,
            "/help": self._help,
        }
        if command not in commands:
            remedy = suggestion(command, [*commands, "/quit"]) or f"the commands are {', '.join(commands)}, /quit"
            raise UserError(f"{for_terminal(command[:40])}: no such command; {remedy}")
        commands[command](rest.strip())

    def _ask(self, prompt: str) -> None:
        sampling = self._next_sampling()
        samples = self._show(
            self.speakers, sampling, lambda show: talk.answers(self.speakers, prompt, sampling, self.before, show)
        )
        self.prompt, self.replies, self.chain = prompt, _texts(samples), None
        before = {name: list(turns) for name, turns in self.before.items()}  # a copy: `/more` adds to the lists
        self._add("answers", sampling, prompt=prompt, before=before, answers=_stored(samples))

    def _more(self, text: str) -> None:
        prompt = self._last_prompt()
        if not text:
            raise UserError("/more: give the text of the next turn, such as /more Why?")
        for name, reply in self.replies.items():
            self.before.setdefault(name, []).append((prompt, reply))
        self._ask(text)

    def _again(self, _: str) -> None:
        self._ask(self._last_prompt())

    def _critique(self, wish: str) -> None:
        prompt, speaker, principle = self._last_prompt(), self._interpreter(), self._principle(wish)
        if self.chain is None:
            self.chain = ChainByHand(self.replies[speaker.name])
        sampling = self._next_sampling()
        self.say(f"{principle.name}: {principle.critique_request}")
        response = {speaker.name: self.chain.response}
        samples = self._show(
            [speaker],
            sampling,
            lambda show: talk.critiques([speaker], prompt, response, principle, sampling, show),
        )
        (text,) = _texts(samples).values()
        self.chain.critique = (principle, text)
        self._add(
            "critique", sampling, prompt=prompt, response=self.chain.response, principle=principle.name, text=text
        )

    def _revise(self, _: str) -> None:
        prompt, speaker = self._last_prompt(), self._interpreter()
        if self.chain is None or self.chain.critique is None:
            raise UserError("/revise: there is no critique yet; first /critique PRINCIPLE (/principles lists them)")
        principle, critique = self.chain.critique
        sampling, response = self._next_sampling(), {speaker.name: self.chain.response}
        self.say(f"{principle.name}: {principle.revision_request}")
        samples = self._show(
            [speaker],
            sampling,
            lambda show: talk.revisions(
                [speaker], prompt, response, principle, {speaker.name: critique}, sampling, show
            ),
        )
        (text,) = _texts(samples).values()
        self.chain = ChainByHand(text, revised=True)
        self._add("revision", sampling, prompt=prompt, principle=principle.name, critique=critique, text=text)

    def _principles(self, _: str) -> None:
        for number, principle in enumerate(self.constitution.principles, start=1):
            self.say(f"{number:>3} {principle.name}: {principle.critique_request}")

    def _why(self, _: str) -> None:
        prompt = self._last_prompt()
        texts = dict(self.replies)
        if self.chain is not None and self.chain.revised:
            texts[f"{self._interpreter().name}, revised"] = self.chain.response
        table = talk.why(self.speakers, prompt, texts, self.before)
        title = "Mean log-probability per token (nats) of each answer to the prompt (row) under each arm (column)"
        grid = Table(
            title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False
        )
        grid.add_column("answer of")
        for reader in self.speakers:
            grid.add_column(f"under {reader.name}", justify="right")
        for name, row in table.items():
            cells = ["–" if value is None else f"{value:.2f}".replace("-", "−") for value in row.values()]
            grid.add_row(name, *cells)
        self._console.print(grid)
        self.record.append({"step": "why", "prompt": prompt, "answers": texts, "mean_logprob": table})

    def _save(self, name: str) -> None:
        path = save_file(name)
        try:
            path.write_bytes(to_lines(self.record))
        except OSError as error:
            raise UserError(f"/save {path}: cannot be written ({error.strerror}); give another place") from error
        self.say(f"{counted(len(self.record), 'step')} saved in {path}")

    def _help(self, _: str) -> None:
        self.say(CHAT_USAGE.partition("While it runs:\n")[2].rstrip())

    def _add(self, step: str, sampling: Sampling, **content: object) -> None:
        how = {"temperature": sampling.temperature, "max_tokens": sampling.max_tokens, "draw": str(sampling.seed)}
        self.record.append({"step": step, **content, **how})

    def _next_sampling(self) -> Sampling:
        """The sampling of the next turn: the first turn uses the conversation's seed, later turns derive their own."""
        self.turn += 1
        return Sampling(
            self.sampling.temperature, self.sampling.max_tokens, talk.draw_seed(self.sampling.seed, self.turn)
        )

    def _last_prompt(self) -> str:
        if self.prompt is None:
            raise UserError("there is no prompt yet; type one first")
        return self.prompt

    def _interpreter(self) -> Speaker:
        fitting = [one for one in self.speakers if isinstance(one.layout, Dialogue)]
        if not fitting:
            raise UserError("/critique: needs an arm with the few-shot dialogue; all models here use a chat template")
        return next((one for one in fitting if one.arm == INTERPRETER), fitting[0])

    def _principle(self, wish: str) -> Principle:
        principles = self.constitution.principles
        by_name = {principle.name: principle for principle in principles}
        if wish.isdecimal() and 1 <= int(wish) <= len(principles):
            return principles[int(wish) - 1]
        if wish not in by_name:
            if not wish:
                raise UserError(
                    f"/critique: name a principle or give its number from 1 to {len(principles)}: /principles"
                )
            remedy = suggestion(wish, by_name) or f"give a name or a number from 1 to {len(principles)}: /principles"
            raise UserError(f"/critique {for_terminal(wish[:60])}: no such principle; {remedy}")
        return by_name[wish]

    def _show(
        self, speakers: Sequence[Speaker], sampling: Sampling, draw: Callable[[talk.TextListener], dict[str, Sample]]
    ) -> dict[str, Sample]:
        """Show answers while they grow and then in full; the limit of tokens is named where it ended one."""
        texts = {one.name: "" for one in speakers}
        if not self._terminal:
            samples = draw(lambda speaker, text: None)
        else:
            with Live(console=self._console, transient=True, refresh_per_second=12) as live:

                def grow(speaker: Speaker, text: str) -> None:
                    texts[speaker.name] = text
                    live.update(self._layout(texts, speakers))

                samples = draw(grow)
        limit = f" … (ended at {sampling.max_tokens} tokens: --max-tokens)"
        ends = {name: limit for name, sample in samples.items() if sample.stop_reason == "length"}
        self._console.print(self._layout(_texts(samples), speakers, ends))
        return samples

    def _layout(
        self, texts: Mapping[str, str], speakers: Sequence[Speaker], ends: Mapping[str, str] = MappingProxyType({})
    ) -> Table | Group:
        heads = {one.name: f"{all_arms.arm(one.arm).label} ({one.name})" for one in speakers}
        bodies = {
            name: Text(for_terminal(text.strip()) or "(says nothing)").append(ends.get(name, ""), style="dim")
            for name, text in texts.items()
        }
        if not self._terminal or self._console.width < COLUMN * len(texts):
            lines = [part for name in texts for part in (Text(f"[{name}]", style="bold"), bodies[name])]
            return Group(*lines)
        table = Table(expand=True, show_lines=False)
        for one in speakers:
            table.add_column(heads[one.name], ratio=1, header_style=all_arms.arm(one.arm).colour, overflow="fold")
        table.add_row(*bodies.values())
        return table


def _texts(samples: Mapping[str, Sample]) -> dict[str, str]:
    return {name: sample.text.strip() for name, sample in samples.items()}


def _stored(samples: Mapping[str, Sample]) -> JsonObject:
    return {
        name: {"text": sample.text.strip(), "tokens": len(sample.tokens), "ended_by": sample.stop_reason}
        for name, sample in samples.items()
    }
