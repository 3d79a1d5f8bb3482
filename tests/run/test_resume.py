"""Stopped anywhere, resumed: the same results, byte for byte."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cai_base import experiment, store
from cai_base.engines.local import LocalEngine
from cai_base.errors import UserError
from cai_base.method import pairs
from cai_base.progress import Progress
from cai_base.run import start
from cai_base.run.start import load_engine  # before the tests put a loaded one in its place
from cai_base.settings import command_line as flags
from cai_base.settings.choices import ModelChoice

PROMPTS = Path(__file__).parent / "resume_prompts.jsonl"
SMALL = (
    "--seeds 2 --sft.steps 4 --evaluate-every 2 --revision.prompts 8 --revision.unit 4 --revision.rounds 2 "
    "--dpo.steps 4 --dpo.batch-size 2 --dpo.held-out 0.3 --arms sft,cai,sl-cai,instruct --sl-cai.steps 2 --threads 1 "
    "--revision.response-tokens 60 --revision.critique-tokens 16 --evaluation.response-tokens 16 --lora.rank 4 "
    f"--evaluation.prompts {PROMPTS}"
).split()
PHASES = ("evaluation of base", "sft", "revision", "pairs", "reference", "dpo", "sl-cai")


@pytest.fixture(scope="module")
def quiet() -> Progress:
    return Progress(open(os.devnull, "w"))


@pytest.fixture(scope="module", autouse=True)
def engine(quiet: Progress) -> Iterator[LocalEngine]:
    """One loaded base model for all runs in this process; its adapters are removed when a run is opened."""
    settings = flags.load_settings(SMALL).settings
    engine = start.load_engine(settings.base_model, quiet)
    assert isinstance(engine, LocalEngine)

    def load(base: ModelChoice, progress: Progress, findings: store.JsonObject | None = None) -> LocalEngine:
        engine.remove(list(engine._bank.adapters))
        return engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "load_engine", load)
        yield engine


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, quiet: Progress) -> Path:
    """A small run that nothing stopped."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    settings = flags.load_settings(SMALL).settings
    experiment.begin(settings, out, quiet).finish()
    return out


def artifacts(run: Path) -> dict[str, bytes]:
    """Everything that is equal in equal runs: all files except times, hosts and the logs for Inspect."""
    others = (run / "manifest.json", run / "usage.json", *run.glob("inspect/*"))
    files = [path for path in sorted(run.rglob("*")) if path.is_file() and path not in others]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in files}


def assert_equal_runs(run: Path, other: Path) -> None:
    ours, theirs = artifacts(run), artifacts(other)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


def test_a_run_that_stops_at_every_unit_ends_as_if_it_had_not(
    uninterrupted: Path, tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each life stores one unit and dies between writing the next one's files and vouching for them."""
    out = tmp_path / "run"
    real = store.write_atomic
    left = 0

    def dying(path: Path, content: bytes) -> None:
        nonlocal left
        if path.name == store.MANIFEST:
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
        real(path, content)

    monkeypatch.setattr(store, "write_atomic", dying)
    left = 1
    settings = flags.load_settings(SMALL).settings
    lives = 1
    with pytest.raises(KeyboardInterrupt):
        experiment.begin(settings, out, quiet).finish()
    while True:
        left, lives = 1, lives + 1
        try:
            experiment.resume(out, quiet).finish()
        except KeyboardInterrupt:
            continue
        break
    assert lives > 15
    assert_equal_runs(out, uninterrupted)


def test_a_run_killed_in_every_phase_ends_as_if_it_had_not(uninterrupted: Path, tmp_path: Path) -> None:
    """kill -9 as soon as each phase has stored something, then resume."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "cai_base"]
    args = ["run", "--out", str(out), *SMALL]
    for phase in PHASES:
        process = subprocess.Popen([*command, *args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and phase not in _progress(out):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, f"the run ended before {phase} could be killed"
        args = ["resume", str(out)]
    ended = subprocess.run([*command, *args], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert (out / "results.json").read_bytes() == (uninterrupted / "results.json").read_bytes()


def _heed_ctrl_c() -> None:
    """A shell's background process ignores Ctrl-C, and so do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_says_how_to_continue(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "cai_base", "run", "--out", str(out), *SMALL]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_heed_ctrl_c
    )
    while process.poll() is None and "evaluation of base" not in _progress(out):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out_text, error = process.communicate(timeout=60)
    assert process.returncode == 3
    assert f"cai-base resume {out}" in error
    assert "Traceback" not in error
    assert out_text == ""


def test_resuming_a_finished_run_changes_nothing(uninterrupted: Path, quiet: Progress) -> None:
    before = artifacts(uninterrupted)
    experiment.resume(uninterrupted, quiet).finish()
    assert artifacts(uninterrupted) == before


def test_the_margin_is_exactly_zero_before_the_first_update(uninterrupted: Path) -> None:
    for seed in range(2):
        first = next(store.read_lines(uninterrupted / f"seed-{seed}/dpo/metrics.jsonl"))
        assert (first["step"], first["margin"], first["chosen_reward"]) == (0, 0.0, 0.0)


def trained_pairs(directory: Path, limit: int = 0) -> dict[int, list[str]]:
    """The ids of the pairs that DPO trains on, by seed."""
    run = store.Run.open(directory)
    bench: Any = SimpleNamespace(run=run, remaining=lambda *phases: [0, 1])
    by_seed = pairs.training_pairs(bench, "dpo", None, limit)
    return {seed: [pair.id for pair in of_seed] for seed, of_seed in by_seed.items()}


def test_held_out_pairs_are_never_trained_on(uninterrupted: Path) -> None:
    held_out = 0
    for seed, trained in trained_pairs(uninterrupted).items():
        stored = list(store.read_lines(uninterrupted / f"seed-{seed}/pairs.jsonl"))
        kept = {pair["id"] for pair in stored if pair["held_out"]}
        assert set(trained) == {pair["id"] for pair in stored} - kept
        held_out += len(kept)
    assert held_out


def test_with_a_number_of_pairs_only_the_first_pairs_of_a_seed_are_trained_on(
    uninterrupted: Path, tmp_path: Path, quiet: Progress
) -> None:
    settings = flags.load_settings([*SMALL, "--dpo.pairs", "1"]).settings
    experiment.begin(settings, tmp_path / "run", quiet).finish()
    for seed, every in trained_pairs(uninterrupted).items():
        assert len(every) > 1
        stored = list(store.read_lines(tmp_path / f"run/seed-{seed}/dpo/reference.jsonl"))
        held_out = {p["id"] for p in store.read_lines(tmp_path / f"run/seed-{seed}/pairs.jsonl") if p["held_out"]}
        assert [one["id"] for one in stored if one["id"] not in held_out] == every[:1]


def test_a_reference_made_by_other_weights_is_refused(
    uninterrupted: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_run = experiment.resume(uninterrupted, quiet)
    monkeypatch.setattr(open_run.session.engine, "fingerprint", lambda adapter: "other")
    with pytest.raises(UserError, match=r"reference\.jsonl: was made by other weights"):
        open_run.finish()


def test_a_base_model_that_was_changed_is_refused_at_every_resume(
    uninterrupted: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only in DPO, whose reference is checked too: SFT and revision would continue with another model."""
    monkeypatch.setattr(start, "load_engine", load_engine)
    monkeypatch.setattr("cai_base.engines.local.model.weights_digest", lambda model: "another")
    with pytest.raises(UserError, match="--model organism: its weights differ from those that this run began with"):
        experiment.resume(uninterrupted, quiet)


def test_one_seed_alone_gives_the_same_answers_as_among_others(
    uninterrupted: Path, tmp_path: Path, quiet: Progress
) -> None:
    settings = flags.load_settings([*SMALL, "--seeds", "1", "--start-seed", "1"]).settings
    experiment.begin(settings, tmp_path / "run", quiet).finish()
    name = "seed-1/revision.jsonl"
    alone, among = (list(store.read_lines(run / name)) for run in (tmp_path / "run", uninterrupted))
    assert [(r["id"], [x["principle"] for x in r["rounds"]]) for r in alone] == [
        (r["id"], [x["principle"] for x in r["rounds"]]) for r in among
    ]
    same = sum(a["original"] == b["original"] for a, b in zip(alone, among, strict=True))
    assert same >= len(alone) - 1  # rounding may move one draw in a thousand, not the rest


def _progress(run: Path) -> dict[str, int]:
    try:
        progress: dict[str, int] = json.loads((run / "manifest.json").read_bytes())["progress"]
    except FileNotFoundError:
        return {}
    return progress
