"""Whole runs on a real Tinker-API server: to the end, and through every kind of death."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import pytest
from serving import Server

from cai_base import organism
from cai_base.store import read_lines

pytestmark = pytest.mark.tinker
PROMPTS = Path(__file__).parents[1] / "resume_prompts.jsonl"
SMALL = (
    "--engine tinker --model organism --lora.rank 8 --lora.alpha 32 --sft.steps 4 --evaluate-every 2 "
    "--revision.prompts 8 --revision.unit 4 --revision.rounds 1 --dpo.steps 4 --dpo.batch-size 2 --dpo.held-out 0.3 "
    "--revision.response-tokens 64 --revision.critique-tokens 32 --evaluation.response-tokens 32 "
    f"--evaluation.prompts {PROMPTS} --tinker-timeout 1200"
).split()
PHASES = ("evaluation of base", "sft", "revision", "reference", "dpo")


def command(args: Seq[str]) -> list[str]:
    return [sys.executable, "-m", "cai_base", *args]


def finish(args: Seq[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(args), capture_output=True, text=True, check=False, timeout=3600)


def progress(run: Path) -> dict[str, int]:
    try:
        found: dict[str, int] = json.loads((run / "manifest.json").read_bytes())["progress"]
    except FileNotFoundError:
        return {}
    return found


def until(process: "subprocess.Popen[Any]", run: Path, phase: str) -> None:
    """Wait until a phase has stored something, which is before it has stored all, or the next has begun."""
    while phase not in progress(run):
        assert process.poll() is None, f"the run ended before {phase}"
        time.sleep(0.05)


def assert_whole(run: Path, seeds: int) -> None:
    """Every step of every phase is there once, every adapter is stored, and there are results."""
    for seed in range(seeds):
        for phase in ("sft", "dpo"):
            metrics = list(read_lines(run / f"seed-{seed}/{phase}/metrics.jsonl"))
            assert [record["step"] for record in metrics] == [0, 1, 2, 3]
            assert (run / f"seed-{seed}/{phase}/adapter/adapter_model.safetensors").is_file()
        assert metrics[0]["margin"] == 0.0
        assert len(list(read_lines(run / f"seed-{seed}/revision.jsonl"))) == 8
    results = json.loads((run / "results.json").read_bytes())
    assert (results["engine"], results["failed"]) == ("tinker", {phase: {} for phase in results["failed"]})
    assert len(results["arms"]["cai"]["helpfulness"]["per_seed"]) == seeds


def test_three_seeds_from_the_base_model_to_the_results(server: Server, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended = finish(["run", *SMALL, "--seeds", "3", "--tinker-url", server.url, "--out", str(run)])
    assert ended.returncode == 0, ended.stderr
    assert_whole(run, 3)
    stored = b"".join(path.read_bytes() for path in run.rglob("*") if path.is_file())
    assert b"tml-a-key" not in stored
    assert "tml-a-key" not in ended.stdout + ended.stderr


def test_a_run_whose_process_is_killed_in_every_phase_ends_whole(server: Server, tmp_path: Path) -> None:
    run = tmp_path / "run"
    args = ["run", *SMALL, "--seeds", "2", "--tinker-url", server.url, "--out", str(run)]
    for phase in PHASES:
        process = subprocess.Popen(command(args), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(process, run, phase)
        process.send_signal(signal.SIGKILL)
        process.wait()
        args = ["resume", str(run)]
    ended = finish(args)
    assert ended.returncode == 0, ended.stderr
    assert_whole(run, 2)


def test_a_run_whose_server_is_killed_in_every_phase_ends_whole(server: Server, tmp_path: Path) -> None:
    """It stops by itself, says that the service is down and how to continue, and continues once it is back."""
    run = tmp_path / "run"
    args = ["run", *SMALL, "--seeds", "2", "--tinker-url", server.url, "--out", str(run)]
    for phase in PHASES:
        process = subprocess.Popen(command(args), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        until(process, run, phase)
        server.kill()
        _, said = process.communicate(timeout=1800)
        server.start()
        assert process.returncode == 3, said
        assert "is down" in said
        assert f"cai-base resume {run}" in said
        assert "Traceback" not in said
        args = ["resume", str(run)]
    ended = finish(args)
    assert ended.returncode == 0, ended.stderr
    assert_whole(run, 2)


def test_a_run_that_cannot_begin_leaves_nothing_behind(server: Server, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for changed, said in {
        ("--model", "a/model"): "does not serve it; it serves organism",
        ("--tinker-url", "http://127.0.0.1:9"): "no Tinker service answers there",
        ("--lora.rank", "64"): "--lora.rank 64",
    }.items():
        tokenizer = ["--tokenizer", str(organism.weights()), "--judge", "none"] if changed[0] == "--model" else []
        ended = finish(["run", *SMALL, "--tinker-url", server.url, "--out", str(run), *changed, *tokenizer])
        assert ended.returncode == 2
        assert said in ended.stderr
        assert "Traceback" not in ended.stderr
        assert not run.exists()
