"""Whole runs on a real Tinker-API server: to the end, and through every kind of death."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from serving import Server

from cai_base import embedded
from cai_base.store import read_lines

pytestmark = pytest.mark.tinker
PROMPTS = Path(__file__).parents[1] / "run/resume_prompts.jsonl"
SMALL = (
    "--engine tinker --model organism --lora.rank 8 --lora.alpha 32 --sft.steps 4 --evaluate-every 2 "
    "--revision.prompts 8 --revision.unit 4 --revision.rounds 1 --dpo.steps 4 --dpo.batch-size 2 --dpo.held-out 0.3 "
    "--revision.response-tokens 64 --revision.critique-tokens 32 --evaluation.response-tokens 32 "
    f"--evaluation.prompts {PROMPTS} --tinker-timeout 1200 --accept rate"
).split()
TINY = (
    "--engine tinker --model organism --arms sft --lora.rank 8 --lora.alpha 32 --seeds 1 --sft.steps 1 "
    "--sft.batch-size 1 --revision.prompts 1 --revision.rounds 1 --revision.response-tokens 16 "
    "--revision.critique-tokens 16 --evaluation.response-tokens 16"
).split()
RUBRIC = """
name = "short"
task = "helpfulness"
instructions = "Grade the response."
[[field]]
name = "grade"
type = "whole"
low = 1
high = 5
about = "how much it helps"
[verdict]
helpfulness = "grade"
"""
PHASES = ("evaluation of base", "sft", "revision", "reference", "dpo")
UNDER_WAY = 3.0
"""Seconds after a phase has stored something, in which it begins something else."""


def command(args: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "cai_base", *args]


def finish(args: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(args), capture_output=True, text=True, check=False, timeout=3600)


def progress(run: Path) -> dict[str, int]:
    try:
        content: dict[str, int] = json.loads((run / "manifest.json").read_bytes())["progress"]
    except FileNotFoundError:
        return {}
    return content


def until(process: "subprocess.Popen[Any]", run: Path, phase: str) -> None:
    """Wait until a phase has stored something, but before it has stored everything or the next phase has begun."""
    while phase not in progress(run):
        assert process.poll() is None, f"the run ended before {phase}"
        time.sleep(0.05)


def assert_whole(run: Path, seeds: int) -> None:
    """Every step of every phase is stored once, every adapter is stored, and there are results."""
    for seed in range(seeds):
        for phase in ("sft", "dpo"):
            metrics = list(read_lines(run / f"seed-{seed}/{phase}/metrics.jsonl"))
            assert [record["step"] for record in metrics] == [0, 1, 2, 3]
            assert (run / f"seed-{seed}/{phase}/adapter/adapter_model.safetensors").is_file()
        # Not exactly: the service pads a batch by what else it has in hand, and sums in another order.
        assert metrics[0]["margin"] == pytest.approx(0.0, abs=1e-5)
        assert len(list(read_lines(run / f"seed-{seed}/revision.jsonl"))) == 8
    results = json.loads((run / "results.json").read_bytes())
    assert (results["engine"], results["failed"]) == ("tinker", {phase: {} for phase in results["failed"]})
    assert len(results["arms"]["cai"]["helpfulness"]["per_seed"]) == seeds


def test_three_seeds_from_the_base_model_to_the_results(server: Server, tmp_path: Path) -> None:
    """With an instruct arm, for which the base model stands in: the server has one model."""
    run = tmp_path / "run"
    instruct = ["--arms", "sft,cai,instruct", "--instruct", "organism", "--instruct-tokenizer", str(embedded.sibling())]
    instruct += ["--accept", "arms,instruct", "--evaluate-every", "4"]
    ended = finish(["run", *SMALL, *instruct, "--seeds", "3", "--tinker-url", server.url, "--out", str(run)])
    assert ended.returncode == 0, ended.stderr
    assert_whole(run, 3)
    assert json.loads((run / "results.json").read_bytes())["arms"]["instruct"]["helpfulness"]["total"] == 6
    spent = json.loads((run / "usage.json").read_bytes())["spent"]
    assert spent["tokens"]["evaluation"]["instruct"]["sampled"] > 0
    assert spent["again"] == {"trained": 0, "prefilled": 0, "sampled": 0}
    stored = b"".join(path.read_bytes() for path in run.rglob("*") if path.is_file())
    assert b"tml-a-key" not in stored
    assert "tml-a-key" not in ended.stdout + ended.stderr


def redone(said: str) -> tuple[int, ...]:
    """What a resumed run says that it does again: tokens read, sampled, trained on."""
    match = re.search(r"again: at most (\d+) tokens read, (\d+) sampled, (\d+) trained on", said)
    return tuple(map(int, match.groups())) if match else (0, 0, 0)


def assert_little_was_redone(run: Path, rows: dict[str, tuple[int, ...]]) -> None:
    """At most one interval of steps was trained again for each kill, and the account has it all."""
    for phase, (read, sampled, trained) in rows.items():
        print(f"| {phase} | {read} | {sampled} | {trained} |")  # the table of docs/tinker.md
    steps = [one for phase in ("sft", "dpo") for one in tokens_a_step(run, phase)]
    assert all(trained <= 2 * max(steps) for *_, trained in rows.values())
    spent = json.loads((run / "usage.json").read_bytes())["spent"]
    assert tuple(spent["again"][kind] for kind in ("prefilled", "sampled", "trained")) == tuple(
        sum(row[kind] for row in rows.values()) for kind in range(3)
    )


def tokens_a_step(run: Path, phase: str) -> list[int]:
    """Tokens that all seeds together trained on at each step."""
    seeds = [[r["tokens"] for r in read_lines(file)] for file in run.glob(f"seed-*/{phase}/metrics.jsonl")]
    return [sum(step) for step in zip(*seeds, strict=True)]


@pytest.mark.slow
def test_a_run_whose_process_is_killed_in_every_phase_ends_whole(server: Server, tmp_path: Path) -> None:
    run, said = tmp_path / "run", []
    args = ["run", *SMALL, "--seeds", "1", "--tinker-url", server.url, "--out", str(run)]
    for phase in PHASES:
        process = subprocess.Popen(command(args), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        until(process, run, phase)
        time.sleep(UNDER_WAY)
        process.send_signal(signal.SIGKILL)
        said.append(process.communicate()[1])
        args = ["resume", str(run)]
    ended = finish(args)
    assert ended.returncode == 0, ended.stderr
    assert_whole(run, 1)
    assert_little_was_redone(run, dict(zip(PHASES, map(redone, [*said[1:], ended.stderr]), strict=True)))


@pytest.mark.slow
def test_a_run_whose_server_is_killed_in_every_phase_ends_whole(server: Server, tmp_path: Path) -> None:
    """It stops by itself, says that the service is down and how to continue, and continues once it is back."""
    run, said = tmp_path / "run", []
    args = ["run", *SMALL, "--seeds", "1", "--tinker-url", server.url, "--out", str(run)]
    for phase in PHASES:
        process = subprocess.Popen(command(args), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        until(process, run, phase)
        time.sleep(UNDER_WAY)
        server.kill()
        said.append(process.communicate(timeout=1800)[1])
        server.start()
        assert process.returncode == 3, said[-1]
        assert "is down" in said[-1]
        assert f"cai-base resume {run}" in said[-1]
        assert "Traceback" not in said[-1]
        args = ["resume", str(run)]
    ended = finish(args)
    assert ended.returncode == 0, ended.stderr
    assert_whole(run, 1)
    assert_little_was_redone(run, dict(zip(PHASES, map(redone, [*said[1:], ended.stderr]), strict=True)))


def test_a_judge_on_the_service_is_asked_and_what_it_does_not_answer_is_unscored(
    server: Server, tmp_path: Path
) -> None:
    """The base model stands in for a judge, which it cannot be: every reply of it is kept, and none is a verdict."""
    run = tmp_path / "run"
    (tmp_path / "asked.jsonl").write_text('{"id": "a", "kind": "benign", "text": "How would you sweep the mill?"}\n')
    (tmp_path / "short.toml").write_text(RUBRIC)
    rubric, asked = (str(tmp_path / name) for name in ("short.toml", "asked.jsonl"))
    judge = ["--judge", "tinker:organism", "--judge-tokenizer", str(embedded.sibling()), "--judging.max-tokens", "16"]
    judge += ["--accept", "judge,rate", "--rubric", rubric, "--evaluation.prompts", asked]
    ended = finish(["run", *TINY, *judge, "--tinker-url", server.url, "--out", str(run)])
    assert ended.returncode == 0, ended.stderr
    (record,) = read_lines(run / "seed-0/evaluation/sft/helpfulness.jsonl")
    assert record["verdict"] is None
    assert "unparseable" in record["unscored"]
    assert (run / "judge.jsonl").is_file()
    assert json.loads((run / "usage.json").read_bytes())["spent"]["tokens"]["evaluation"]["judge"]["sampled"] > 0


def test_a_run_that_cannot_begin_leaves_nothing_behind(server: Server, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for changed, said in {
        ("--model", "a/model"): "does not serve it; it serves organism",
        ("--tinker-url", "http://127.0.0.1:9"): "no Tinker service answers there",
        ("--lora.rank", "64"): "--lora.rank 64",
    }.items():
        tokenizer = ["--tokenizer", str(embedded.weights()), "--judge", "none"] if changed[0] == "--model" else []
        ended = finish(["run", *SMALL, "--tinker-url", server.url, "--out", str(run), *changed, *tokenizer])
        assert ended.returncode == 2
        assert said in ended.stderr
        assert "Traceback" not in ended.stderr
        assert not run.exists()
