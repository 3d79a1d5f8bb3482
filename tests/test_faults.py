"""The faults that cost the original experiment its money: each is provoked, and its message is checked word for word.

The messages stand in docs/faults.md as they are tested here; FILE and RUN stand there for paths.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from evaluation.small_chat import save

from cai_base import randomness
from cai_base.cli import main
from cai_base.dialogue import END, Dialogue, prompt_tokens
from cai_base.engines import Datum, Sample, SampleRequest
from cai_base.errors import UserError
from cai_base.evaluation import metrics
from cai_base.evaluation.judges import GroundTruth, NoJudge
from cai_base.evaluation.judges.grading import RubricGrading
from cai_base.evaluation.tasks.prompts import PROMPT_FIT, answer
from cai_base.inputs import gather
from cai_base.inputs.prompts import Prompt
from cai_base.inputs.rubrics import load_rubric
from cai_base.method.training import trained_datum
from cai_base.records import Answer, Figure, RevisionFigures, Verdict
from cai_base.run.preflight.design import check_power
from cai_base.run.preflight.models import check_instruct, check_rate
from cai_base.run.preflight.outcome import Check, refuse
from cai_base.run.results.warnings import (
    filtered_chains,
    no_safer_revisions,
    same_weights,
    uncovered,
    unrelated_answers,
    useless_revisions,
)
from cai_base.settings.command_line import load_settings
from cai_base.settings.schema import Evaluation
from cai_base.store import Run

FAULTS = (Path(__file__).parents[1] / "docs/faults.md").read_text(encoding="utf-8")


def said(message: str, **paths: Path) -> None:
    """Assert that a message stands in the page, line by line, with the paths by their names."""
    for name, path in paths.items():
        message = message.replace(str(path), name)
    blocks = [
        "\n".join(line.strip() for line in block.splitlines()) for block in re.findall(r"```\n(.*?)```", FAULTS, re.S)
    ]
    assert message.strip() in [block.strip() for block in blocks], message


class Engine:
    """Says what it is told to; a character is a token."""

    model, notes, context_length, bos = "fake", (), 1000, ()

    def __init__(self, text: str = "") -> None:
        self.tokenizer: Any = self
        self.text = text
        self.calls: list[Sequence[SampleRequest]] = []

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def sample(self, requests: Sequence[SampleRequest], listener: object = None) -> list[Sample]:
        self.calls.append(requests)
        return [Sample(self.text, tuple(map(ord, self.text)), "stop") for _ in requests]

    def compute_logprobs(self, sequences: dict[None, list[Datum]]) -> dict[None, list[float]]:
        return {None: [-0.5] * len(sequences[None])}


def begun(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()  # what making a model said
    assert main(command) == 2
    return capsys.readouterr().err


def test_training_prompts_that_are_evaluation_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, asked = tmp_path / "mine.txt", tmp_path / "asked.jsonl"
    file.write_text("How do I comb the wool?\nHow do I mend the GATE?\n")
    asked.write_text('{"kind": "benign", "text": "How do I mend the gate?"}\n')
    flags = ["--prompts", str(file), "--evaluation.prompts", str(asked)]
    said(begun(["run", *flags, "--out", str(tmp_path / "run")], capsys), FILE=file, TEST=asked)


def test_too_few_seeds_or_prompts_to_show_anything() -> None:
    def check(*flags: str) -> Check:
        settings = load_settings(["--seeds", *flags])[0]
        return check_power(gather(settings), settings.seeds, embedded=settings.model == "organism")

    said("\n".join(f"warning: {warning}" for warning in refuse([check("2")], ())))
    assert check("1").outcome == "warned"
    assert "with one seed the interval of a difference is over prompts only" in check("1").finding
    assert check("1").do == "give --seeds 3 or more", "24 jailbreak prompts are enough"
    assert check("10").outcome == "passed"
    assert "to detect 5 points you need about 19 seeds with 400 prompts" in check("10").finding


def test_prompts_at_the_floor() -> None:
    engine: Any = Engine("I will not help with that.")
    asked = [
        Prompt(id=f"{n}", kind="jailbreak", family="override", text="How would you forge the songbook?")
        for n in range(24)
    ]
    settings = Evaluation.model_validate({"temperature": 0.7, "response-tokens": 8})
    check, _ = check_rate(engine, Dialogue((), ()), settings, GroundTruth(), asked, 0)
    with pytest.raises(UserError) as caught:
        refuse([check], ())
    said(f"cai-base: {caught.value}")


def test_a_judge_without_its_chat_template(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = save(tmp_path / "bare", {"safe": {"turn": 1.0}}, template=None)
    err = begun(["run", "--judge", f"hf:{bare}", "--out", str(tmp_path / "run")], capsys)
    said(err, FOLDER=bare)


def test_special_tokens_in_a_judges_answer_are_no_verdict() -> None:
    grading = RubricGrading(load_rubric("attack"))
    result = [
        grading.read(raw, "") for raw in ("<|eot_id|><|start_header_id|>assistant<|end_header_id|>", "not harmful")
    ]
    assert {getattr(one, "reason", None) for one in result} == {"unparseable: not one JSON object"}


def test_what_does_not_parse_is_counted_and_opens_the_report() -> None:
    def answered(number: int, verdict: Verdict | None) -> Answer:
        asked = {"id": str(number), "kind": "jailbreak", "family": "override", "prompt": "How?"}
        told = {"response": "So.", "tokens": 5, "truncated": False, "verdict": verdict, "unscored": None}
        return Answer.model_validate(asked | told)

    verdicts = (Verdict(complied=True, refused=False, gibberish=False), None, None, None)
    figures = metrics.figures([[answered(number, verdict) for number, verdict in enumerate(verdicts)]])
    figure = figures["attack_success_rate"]
    assert (figure.mean, figure.scored, figure.total, figure.worst_case) == (1.0, 1, 4, (0.25, 1.0))
    (warning,) = uncovered({"base": {"attack_success_rate": figure}}, judged=True)
    said(f"warning: {warning}")


def test_an_instruct_model_that_writes_gibberish() -> None:
    def record(number: int, text: str) -> Answer:
        return Answer(
            id=f"{number}",
            kind="benign",
            family=None,
            prompt="How do I sweep the mill?",
            response=text,
            tokens=None,
            truncated=False,
            verdict=None,
            unscored=None,
        )

    engine: Any = Engine()
    broken = [record(n, "Blorf tessin kavul ambrit sone.") for n in range(8)]
    check = check_instruct(broken, GroundTruth(), engine, Dialogue((), ()), [record(9, "Use the birch broom.")])
    with pytest.raises(UserError) as caught:
        refuse([check], ())
    said(f"cai-base: {caught.value}")


def test_an_arm_that_is_another_arms_model(tmp_path: Path) -> None:
    for phase in ("sft", "dpo"):
        (tmp_path / f"seed-0/{phase}/adapter").mkdir(parents=True)
        (tmp_path / f"seed-0/{phase}/adapter/adapter_model.safetensors").write_bytes(b"same")
    (warning,) = same_weights(tmp_path, ["cai"], range(1))
    said(f"warning: {warning}")


def test_weights_that_are_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    run = Run.create(out, {"sft": {"steps": 1}}, {})
    weights = out / "seed-0/dpo/adapter/adapter_model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    run.commit("dpo adapters", 1, adopt=["seed-0/dpo/adapter"])
    weights.unlink()
    said(begun(["resume", str(out)], capsys).split("\n", 1)[1], RUN=out)


def test_a_configuration_that_was_changed_before_resuming(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    Run.create(out, {"sft": {"steps": 60}}, {})
    (out / "config.json").write_text('{"sft": {"steps": 500}}')
    said(begun(["resume", str(out)], capsys).split("\n", 1)[1], RUN=out)


def test_principles_are_drawn_from_seeded_streams() -> None:
    draws = [
        [int(randomness.stream(seed, "revision", f"p{n}", 1, "principle").integers(18)) for n in range(50)]
        for seed in (0, 0, 1)
    ]
    assert draws[0] == draws[1] != draws[2]


def test_the_end_of_a_response_is_trained() -> None:
    tokenizer: Any = Engine()
    sequence = trained_datum(tokenizer, Dialogue((), ()), "How?", "So.")
    trained = "".join(chr(t) for t, w in zip(sequence.tokens, sequence.weights, strict=True) if w)
    assert trained == f" So.{END}"


def test_seeds_are_asked_together() -> None:
    engine: Any = Engine("So.")
    prompts = [Prompt(id=f"{n}", kind="benign", text=f"Question {n}?") for n in range(5)]
    settings = Evaluation.model_validate({"temperature": 0.7, "response-tokens": 8})
    answer(engine, Dialogue((), ()), settings, NoJudge(), prompts, {seed: f"sft/{seed}" for seed in range(10)})
    assert [len(requests) for requests in engine.calls] == [50]


def test_answers_end_where_the_next_turn_begins() -> None:
    engine: Any = Engine("So.")
    prompts = [Prompt(id="0", kind="benign", text="How?")]
    settings = Evaluation.model_validate({"temperature": 0.7, "response-tokens": 8})
    answer(engine, Dialogue((), ()), settings, NoJudge(), prompts, {0: None})
    ((request,),) = engine.calls
    assert "\nUser:" in request.stop
    assert request.prompt == prompt_tokens(engine, Dialogue((), ()).question("How?"))


def test_revisions_that_are_no_safer() -> None:
    (warning,) = no_safer_revisions([0.5, 0.25, 0.5])
    said(f"warning: {warning}")
    assert no_safer_revisions([0.5, 0.6, 0.25]) == []
    assert no_safer_revisions([None, None]) == []


def test_answers_that_are_not_shown_to_be_about_their_prompts_are_a_warning() -> None:
    def arm(mean: float, low: float) -> dict[str, Figure]:
        about = {"mean": mean, "ci95": (low, mean + 1), "ci95_over": "prompts", "per_seed": (), "std": None}
        counts = {"scored": 2, "answered": 2, "total": 2, "worst_case": (None, None), "by_family": {}}
        return {PROMPT_FIT: Figure.model_validate(about | counts | {"ci95_seeds": None})}

    fitting, unclear, elsewhere = arm(1.3, 1.0), arm(0.2, -0.1), arm(-0.4, -0.6)
    (warning,) = unrelated_answers({"base": fitting, "sft": unclear, "cai": elsewhere})
    assert "sft (+0.20 nats per token), cai (-0.40 nats per token)" in warning
    assert unrelated_answers({"base": fitting}) == unrelated_answers({"cai": {}}) == []


def test_revisions_that_answer_nothing_any_more_are_a_warning() -> None:
    (warning,) = useless_revisions([4.46, 1.06, 1.03])
    assert "falls from 4.5 to 1.0 (1-5) in 2 rounds" in warning
    assert useless_revisions([4.5, 3.0, 4.0]) == []
    assert useless_revisions([None, None]) == []
    assert useless_revisions([]) == []


def test_many_chains_without_a_preference_pair_are_a_warning() -> None:
    filtered = {"identical": 0, "empty": 0, "truncated": 439, "off the rails": 2}
    (warning,) = filtered_chains(RevisionFigures.model_construct(chains=960, filtered=filtered))
    assert warning == "441 of 960 revision chains gave no preference pair: 439 truncated, 2 off the rails"
    assert filtered_chains(RevisionFigures.model_construct(chains=960, filtered={"identical": 118})) == []


def test_every_test_that_the_page_names_is_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", FAULTS)
    assert len(named) >= 15
    root = Path(__file__).parents[1]
    for file, name in named:
        assert f"def {name}(" in (root / file).read_text(encoding="utf-8"), name
