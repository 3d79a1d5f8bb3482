"""Training in which every seed fails: a clear message, and the rest of the run stays readable."""

import json
from pathlib import Path

import pytest
from torch import Tensor

from cai_base.cli import main
from cai_base.engines import Loss, LossValue
from cai_base.method import dpo, sft

PROMPTS = Path(__file__).parent / "resume_prompts.jsonl"
SMALL = (
    "--seeds 2 --sft.steps 2 --revision.prompts 8 --revision.rounds 1 --dpo.steps 2 --dpo.batch-size 2 --threads 1 "
    "--revision.response-tokens 40 --revision.critique-tokens 16 --evaluation.response-tokens 16 --lora.rank 4 "
    f"--dpo.learning-rate 0.5 --evaluation.prompts {PROMPTS}"
).split()


def not_a_number(*args: object) -> Loss:
    """The loss of an adapter that has diverged."""

    def loss(logprobs: Tensor) -> LossValue:
        return LossValue(logprobs.sum() * float("nan"))

    return loss


def test_when_every_seed_diverges_in_dpo_the_command_fails_and_the_run_is_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dpo, "preference_loss", not_a_number)
    out = tmp_path / "run"
    assert main(["run", "--out", str(out), *SMALL]) == 2
    said = capsys.readouterr()
    assert "--dpo.learning-rate 0.5: every seed failed in dpo (seed 0: the loss is nan; seed 1:" in said.err
    assert "Start a new run with a lower learning rate" in said.err
    assert "There is no result for Full CAI" in said.out
    asked = 2 * len(PROMPTS.read_text().splitlines())
    assert f"answers of base: {asked} of {asked}" in said.err
    assert f"answers of sft: {asked} of {asked}" in said.err
    assert f"Writing the report of {out}" in said.err
    results = json.loads((out / "results.json").read_bytes())
    assert results["arms"]["sft"]["helpfulness"]["answered"] > 0
    assert (out / "report.html").exists()
    assert main(["resume", str(out)]) == 2, "nothing is left that could be resumed"
    resumed = capsys.readouterr().err
    assert resumed.startswith(f"Checking the files of {out}\n{out} is complete: there is nothing left to do")
    assert f"The report of {out} is up to date" in resumed, "no file changed, so nothing is written again"
    assert main(["report", str(out)]) == 0
    assert capsys.readouterr().err.startswith(f"Checking the files of {out}\nThe report of {out} is up to date\n")


def test_when_every_seed_diverges_in_sft_only_the_base_model_has_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sft, "nll_loss", not_a_number)
    out = tmp_path / "run"
    assert main(["run", "--out", str(out), *SMALL]) == 2
    said = capsys.readouterr()
    assert "--sft.learning-rate" in said.err
    assert "every seed failed in sft" in said.err
    assert json.loads((out / "results.json").read_bytes())["arms"]["base"]["helpfulness"]["answered"] > 0
    assert (out / "report.html").exists()
