"""How long a run with a million judgements takes to be read again, and in how much memory.

    python benchmarks/large_run.py [--replies 1000000] [--chains 100000] [--folder FOLDER] [--out FILE.json]

Makes the folder of a run on the embedded model that was stopped before its last unit of revision, through the store's
own writers: ten seeds, their SFT adapters as the engine saves them, chains, the evaluations of the base model and of
SFT, and a judge's replies. Texts have a natural length and say nothing. Then each command reads it in a process of its
own: `resume` until the engine is asked for the first text of the unit that is left, `status` as `watch` asks for it
every second, and a commit of one unit as every unit makes it. Then the run is finished in the same way, with the
answers of full CAI; its results are computed, its page is written, and the whole is verified. No judge is asked.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

from cai_base import experiment, paths
from cai_base.arms import ARMS, FULL
from cai_base.cli import main as main_of
from cai_base.engines import Adapter, Engine, Tokenizer
from cai_base.evaluation.judges import Response
from cai_base.evaluation.judges.grading import RubricGrading
from cai_base.evaluation.judges.replies import Question, Reply, ReplyFile
from cai_base.inputs import Inputs, gather
from cai_base.inputs.kinds import ANSWER_FILES, PROMPT_KINDS
from cai_base.method.pairs import Pairs, rule
from cai_base.method.phase import adapter_name
from cai_base.models import load_engine
from cai_base.progress import Progress
from cai_base.records import Answer, Chain, Round, TrainingStep, Verdict
from cai_base.run.findings import record_of
from cai_base.run.results import run as results
from cai_base.run.status import read_status
from cai_base.settings.command_line import load_settings
from cai_base.settings.schema import RunSettings
from cai_base.settings.validation import stored_settings
from cai_base.store import Run, to_json, to_lines

SEEDS, UNIT, ROUNDS = 10, 64, 2
WORDS = "the miller keeps the gate of the old mill and the smith mends it when the rain has come "
KINDS = ("benign", "jailbreak")
FLAGS = (
    f"--seeds {SEEDS} --threads 1 --arms sft,cai --sft.steps 2 --dpo.steps 2 --evaluate-every 2 --lora.rank 8 "
    "--judge openai:judge"
)


def text(about: str, length: int) -> str:
    """A text of this many characters."""
    return f"{about} {WORDS * (length // len(WORDS) + 1)}"[:length]


def make(folder: Path, replies: int, chains: int) -> Path:
    """The folder of the stopped run."""
    per_seed, evaluated = chains // SEEDS, replies // (4 * SEEDS)
    method, test = folder / "method.jsonl", folder / "test.jsonl"
    method.write_bytes(to_lines({"text": text(f"Method {n}: how", 80)} for n in range(per_seed)))
    test.write_bytes(
        to_lines(
            {"id": f"e{n}", "kind": KINDS[n % 2], "text": text(f"Test {n}: how", 80)}
            | ({"family": f"family {n % 14}"} if n % 2 else {})
            for n in range(evaluated)
        )
    )
    flags = [*FLAGS.split(), "--judge-url", "http://127.0.0.1:9/v1", "--prompts", str(method)]
    flags += ["--revision.prompts", "0", "--revision.unit", str(UNIT), "--revision.rounds", str(ROUNDS)]
    settings = load_settings([*flags, "--evaluation.prompts", str(test)]).settings
    inputs = gather(settings)
    run = Run.create(
        folder / "run",
        settings.model_dump(mode="json", by_alias=True),
        {paths.INPUTS: inputs.to_bytes(), paths.WARNINGS: to_json([])},
    )
    store_sft(run, settings)
    for seed in settings.seed_numbers:
        for arm in ("base", "sft"):
            store_answers(run, inputs, seed, arm)
    for name in ("base", "sft", "sft at step 2"):
        run.commit(f"evaluation of {name}", 1)
    units = -(-per_seed // UNIT)
    stored = inputs.prompts[: (units - 1) * UNIT]
    for seed in settings.seed_numbers:
        run.commit(write={paths.chains(seed): to_lines(chain(inputs, n, seed).dump() for n in range(len(stored)))})
    run.commit("revision", units - 1)
    store_replies(run.directory / paths.replies("judge"), inputs, replies)
    return run.directory


def store_sft(run: Run, settings: RunSettings) -> None:
    """Adapters of every seed after the last step of SFT, as the engine saves them."""
    engine = load_engine(settings.base_model, Progress.quiet())
    run.record_on_commit("engine", lambda: record_of(engine))
    adapters: dict[Adapter, int] = {adapter_name("sft", seed): seed for seed in settings.seed_numbers}
    engine.create(adapters)
    steps = settings.sft.steps
    states = {seed: paths.state(seed, "sft", steps) for seed in settings.seed_numbers}
    engine.save({name: run.directory / states[seed] for name, seed in adapters.items()})
    lines = [TrainingStep(step=n, loss=1.0, learning_rate=1e-4, tokens=100) for n in range(steps)]
    run.commit(
        "sft",
        steps,
        append={paths.metrics(seed, "sft"): to_lines(one.dump() for one in lines) for seed in states},
        adopt=states.values(),
    )


def store_answers(run: Run, inputs: Inputs, seed: int, arm: str) -> None:
    """An arm's answers to every evaluation prompt, with verdicts."""
    answers = [
        Answer(
            id=prompt.id,
            kind=str(prompt.kind),
            family=prompt.family,
            prompt=prompt.text,
            response=text(f"{arm} {seed} {n}", 200),
            tokens=50,
            truncated=False,
            verdict=Verdict(complied=n % 3 == 0, refused=n % 3 == 1, helpfulness=3.0),
            unscored=None,
            logprob=-1.5,
            opening_logprob=-1.0,
        )
        for n, prompt in enumerate(inputs.evaluation_prompts)
    ]
    for file in ANSWER_FILES:
        content = to_lines(one.dump() for one in answers if PROMPT_KINDS[one.kind].file == file)
        run.commit(write={paths.answers(seed, arm, file): content})


def chain(inputs: Inputs, number: int, seed: int) -> Chain:
    """A chain of two rounds, with verdicts."""
    prompt, principles = inputs.prompts[number], inputs.constitution.principles
    verdict = Verdict(complied=False, refused=True)
    return Chain(
        id=prompt.id,
        kind=None,
        family=None,
        prompt=prompt.text,
        refusal_opener=None,
        original=text(f"original {number} of {seed}", 200),
        rounds=tuple(
            Round(
                principle=principles[(number + n) % len(principles)].name,
                critique=text(f"critique {n} of {number}", 120),
                revision=text(f"revision {n} of {number}", 200),
            )
            for n in range(ROUNDS)
        ),
        truncated=0,
        sampled_tokens=200,
        outcome="pair",
        verdicts=(verdict,) * (ROUNDS + 1),
        unscored=(None,) * (ROUNDS + 1),
    )


def store_replies(path: Path, inputs: Inputs, count: int) -> None:
    """A judge's replies, each flushed as in a run; here a thousand at a time."""
    grading = RubricGrading(inputs.rubrics[0])
    grades = json.dumps({"reasoning": text("It declines.", 90), "complies": False, "refuses": True})
    file = ReplyFile(None)
    for number in range(count):
        response = Response(f"prompt {number}", "response", (grading.rubric.task,))
        file.add(Question("openai:judge", grading, response, 0), Reply(grades))
    file.keep_in(path)


class FirstTextError(Exception):
    """The resumed run asks its engine for a text."""


def resume(directory: Path) -> None:
    """Everything that `cai-base resume` does before it samples a text."""

    def sample(self: Engine, *arguments: object, **named: object) -> Any:
        raise FirstTextError

    from cai_base.engines.local import LocalEngine

    LocalEngine.sample = sample  # type: ignore[method-assign, assignment]
    try:
        experiment.resume(directory).finish()
    except FirstTextError:
        return
    raise AssertionError("the run had nothing left to sample")


def commit(directory: Path) -> None:
    """Store one more unit of revision: 64 chains of every seed."""
    run = Run.watch(directory)
    inputs = Inputs.read(directory / paths.INPUTS)
    start = run.progress("revision") * UNIT
    numbers = range(start, min(start + UNIT, len(inputs.prompts)))
    run.commit(append={paths.chains(s): to_lines(chain(inputs, n, s).dump() for n in numbers) for s in range(SEEDS)})


def finish(directory: Path) -> None:
    """Store everything but the results."""
    run = Run.watch(directory)
    inputs, settings = Inputs.read(directory / paths.INPUTS), stored_settings(run)
    made = len(run.lines(paths.chains(0)))
    left = range(made, len(inputs.prompts))
    maker = Pairs(ARMS[FULL].pairs or "", None, None, settings.dpo.held_out)
    figures = {"margin": 0.1, "accuracy": 0.5, "chosen_reward": 0.1, "rejected_reward": 0.0}
    step = TrainingStep(step=0, loss=0.7, learning_rate=1e-4, tokens=80, **figures)
    for seed in settings.seed_numbers:
        run.commit(append={paths.chains(seed): to_lines(chain(inputs, n, seed).dump() for n in left)})
        pairs = rule(maker.rule)(maker.source_of(run, cast(Tokenizer, NoLengths()), seed))
        run.commit(write={paths.pairs(seed): to_lines(pair.dump() for pair in pairs)})
        steps = to_lines(step.model_copy(update={"step": n}).dump() for n in range(settings.dpo.steps))
        run.commit(write={paths.metrics(seed, "dpo"): steps})
        store_answers(run, inputs, seed, FULL)


class NoLengths:
    """In place of the tokenizer: lengths of responses are nobody's here."""

    def encode(self, text: str) -> list[int]:
        return []


def store_results(directory: Path) -> None:
    """Compute and store `results.json`, as the end of every run."""
    run = Run.watch(directory)
    inputs, settings = Inputs.read(directory / paths.INPUTS), stored_settings(run)
    content = to_json(results.collect(run, settings, inputs, {}).dump())
    run.commit("results", 1, write={paths.RESULTS: content})


def command(name: str, directory: Path) -> None:
    """A command, which must succeed."""
    if code := main_of([name, str(directory)]):
        raise SystemExit(code)


READERS: dict[str, Callable[[Path], object]] = {
    "resume": resume,
    "status": read_status,
    "a unit stored": commit,
    "(finish)": finish,
    "results": store_results,
    "report": partial(command, "report"),
    "verify": partial(command, "verify"),
}


def measure(name: str, directory: Path) -> dict[str, float]:
    """Seconds, seconds of CPU and megabytes of a reader, in a process of its own; the imports apart."""
    command = [sys.executable, __file__, "--folder", str(directory), "--reader", name]
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return figures


def peak() -> float:
    """Megabytes that this process has held at most. (`getrusage` says what its parent held, if that was more.)"""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks/large_run.py", description=__doc__)
    parser.add_argument("--replies", type=int, default=1_000_000)
    parser.add_argument("--chains", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, default=None, help="where the run is made, or is from an earlier call")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--reader", choices=READERS, default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.reader is not None:
        imports, cpu, began = peak(), time.process_time(), time.monotonic()
        READERS[args.reader](args.folder)
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        print(json.dumps({"seconds": seconds, "cpu": cpu, "megabytes": peak(), "imports": imports}))
        return 0
    os.environ.setdefault("OPENAI_API_KEY", "none")
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        directory = folder / "run"
        if not directory.exists():
            folder.mkdir(parents=True, exist_ok=True)
            make(folder, args.replies, args.chains)
        size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
        print(f"{args.replies:,} replies of a judge, {args.chains:,} chains, {size / 1e6:,.0f} MB\n")
        print("| command | seconds | of CPU | MB at most | MB before it |\n| --- | ---: | ---: | ---: | ---: |")
        figures = {}
        for name in READERS:
            row = figures[name] = measure(name, directory)
            cells = (f"{row[what]:,.1f}" for what in ("seconds", "cpu", "megabytes", "imports"))
            print(f"| {name} | {' | '.join(cells)} |")
    if args.out is not None:
        args.out.write_bytes(to_json({"replies": args.replies, "chains": args.chains, "bytes": size, "rows": figures}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
