"""Preflight's check `critique`: whether a model's critiques depend on the answers that they criticise."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cai_base import inputs, models
from cai_base.dialogue import Dialogue
from cai_base.engines import Datum, Sample, SampleRequest
from cai_base.evaluation.judges import GroundTruth, Judge, NoJudge
from cai_base.inputs.prompts import normalised_hash
from cai_base.run.preflight.critique import area, check_critique, critique_probes, overlap
from cai_base.run.preflight.outcome import Check
from cai_base.settings.presets import defaults
from cai_base.settings.schema import Revision

SETTINGS = Revision.model_validate(defaults("organism")["revision"])


class Interpreter:
    """An engine with given log-probabilities of critiques and given samples."""

    model = "fake"
    notes = ()

    def __init__(self, likes: Callable[[str, str], float], writes: str, context_length: int = 100_000) -> None:
        self.likes, self.writes, self.context_length = likes, writes, context_length
        self.tokenizer = SimpleNamespace(bos=(), encode=lambda text: [ord(c) for c in text])
        self.asked = 0

    def findings(self) -> dict[str, str]:
        return {"model": self.writes}

    def compute_logprobs(self, sequences: dict[None, list[Datum]]) -> dict[None, list[float]]:
        self.asked += 1

        def one(datum: Datum) -> float:
            cut = datum.weights.index(1.0)
            before, critique = ("".join(map(chr, part)) for part in (datum.tokens[:cut], datum.tokens[cut:]))
            return self.likes(before.rpartition("\n\nUser: ")[2], critique)

        return {None: [one(datum) for datum in sequences[None]]}

    def sample(self, requests: Sequence[SampleRequest], listener: object = None) -> list[Sample]:
        return [Sample(self.writes, tuple(map(ord, self.writes)), "stop") for _ in requests]


def check(interpreter: Interpreter, judge: Judge | None = None, *, known_weights: bool = False) -> Check:
    english = inputs.packaged("english")
    layout = Dialogue(english.few_shot, english.critique_examples)
    return check_critique(
        interpreter,  # type: ignore[arg-type]
        layout,
        "english",
        SETTINGS,
        judge or NoJudge(),
        known_weights=known_weights,
    )


def harmful_texts() -> list[str]:
    return [probe.harmful for probe in critique_probes("english")[0].probe]


def sees_harm(shown: str, critique: str) -> float:
    harmful = any(text in shown for text in harmful_texts())
    return 0.0 if (critique.strip() in critique_probes("english")[0].flagging) == harmful else -5.0


def ignores_the_answer(shown: str, critique: str) -> float:
    return float(np.random.default_rng(len(shown) * 7919 + len(critique)).normal())


def test_a_critic_that_sees_harm_passes() -> None:
    passed = check(Interpreter(sees_harm, "The bicycle brake could hurt him badly."))
    assert passed.outcome == "passed"
    assert "area under the curve 1.00 [1.00, 1.00] over 12 prompts" in passed.finding
    assert "0 of 12 critiques copy the worked examples" in passed.finding


def test_a_critic_that_ignores_the_answer_fails_with_any_preference() -> None:
    for likes in (ignores_the_answer, lambda shown, critique: -float(len(critique))):
        failed = check(Interpreter(likes, "Yes."))
        assert failed.outcome == "failed"
        assert "give a stronger model" in failed.do


def test_a_critic_that_copies_the_worked_examples_is_a_warning() -> None:
    example = inputs.packaged("english").critique_examples[0].critique
    warned = check(Interpreter(sees_harm, example))
    assert warned.outcome == "warned"
    assert "12 of 12 critiques copy the worked examples" in warned.finding


def test_every_principle_is_asked_with_the_worked_examples_in_both_orders() -> None:
    examples = inputs.packaged("english").critique_examples
    seen: set[tuple[str, str]] = set()

    class Recording(Interpreter):
        def compute_logprobs(self, sequences: dict[None, list[Datum]]) -> dict[None, list[float]]:
            for datum in sequences[None]:
                text = "".join(map(chr, datum.tokens))
                last = max((example.critique for example in examples), key=text.rfind)
                seen.update((one.name, last) for one in critique_probes("english")[1] if one.critique_request in text)
            return super().compute_logprobs(sequences)

    check(Recording(sees_harm, "Yes."))
    names = critique_probes("english")[0].principles
    assert seen == {(name, examples[end].critique) for name in names for end in (0, -1)}


def test_requests_longer_than_the_context_are_a_warning_and_not_sampled() -> None:
    interpreter = Interpreter(sees_harm, "Yes.", context_length=900)
    assert check(interpreter).outcome == "warned"
    assert interpreter.asked == 0


def test_a_models_outputs_are_cached_if_its_weights_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAI_BASE_CACHE", str(tmp_path))
    interpreter = Interpreter(sees_harm, "No.")
    first = check(interpreter, known_weights=True)
    asked = interpreter.asked
    assert check(interpreter, known_weights=True) == first
    assert interpreter.asked == asked
    assert check(Interpreter(ignores_the_answer, "Other weights."), known_weights=True).outcome == "failed"


@pytest.mark.parametrize("damage", ["no margins", "ragged margins"])
def test_a_damaged_record_of_a_models_outputs_is_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setenv("CAI_BASE_CACHE", str(tmp_path))
    interpreter = Interpreter(sees_harm, "No.")
    first, asked = check(interpreter, known_weights=True), interpreter.asked
    (record,) = (tmp_path / "critiques").iterdir()
    content = json.loads(record.read_text())
    if damage == "no margins":
        del content["margins"]
    else:
        content["margins"][0][0] = content["margins"][0][0][1:]
    record.write_text(json.dumps(content))
    assert check(interpreter, known_weights=True) == first
    assert interpreter.asked == 2 * asked, "the model is asked again"


def test_the_embedded_model_detects_harm_and_its_revisions_remove_it() -> None:
    village = inputs.packaged("world")
    engine = models.load_model(longest=512, threads=1)
    layout = Dialogue(village.few_shot, village.critique_examples)
    passed = check_critique(engine, layout, "world", SETTINGS, GroundTruth(), known_weights=True)
    assert passed.outcome == "passed"
    assert "0 of 6 harmless ones comply" in passed.finding


def test_the_interval_of_the_area_has_about_its_nominal_coverage() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        low, high = area(generator.normal(size=(2, 2, 12)) + generator.normal(size=(2, 1, 12)))[1:]
        covered += low <= 0.5 <= high
    assert covered >= 174  # the percentile bootstrap of 12 prompts covers about 92 %


def test_overlap_counts_4_grams_of_words() -> None:
    assert overlap("one two three four five", ["zero one two three four"]) == 0.5
    assert overlap("one two", ["one two"]) == 0.0


def test_probes_are_in_no_set_that_is_trained_on_or_evaluated() -> None:
    for data in ("english", "world"):
        pack = inputs.packaged(data)
        known = {normalised_hash(prompt.text) for prompt in (*pack.prompts, *pack.evaluation_prompts)}
        texts = [probe.prompt for probe in critique_probes(data)[0].probe]
        assert len({normalised_hash(text) for text in texts} - known) == len(texts) >= 12
