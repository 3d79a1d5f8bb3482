"""Draws from long files: prompts evenly over kinds, and for each seed its own written answers."""

from collections import Counter
from pathlib import Path

from cai_base.inputs import Inputs, gather, packaged
from cai_base.inputs.kinds import evenly
from cai_base.inputs.prompts import Example
from cai_base.method.sft import WRITTEN, with_refusals, written_answers
from cai_base.run.start import other_requests
from cai_base.settings.command_line import load_settings

EXAMPLES = [Example(prompt=f"Question {n}?", response=f"Answer {n}.") for n in range(20)]


def gathered(*flags: str) -> Inputs:
    return gather(load_settings([*flags]).settings)


def test_prompts_sorted_by_kind_are_taken_evenly_over_kinds() -> None:
    kinds = ["benign"] * 60 + ["borderline"] * 30 + ["sensitive"] * 10
    assert Counter(evenly(kinds, 20, str)) == {"benign": 12, "borderline": 6, "sensitive": 2}
    mixed = ["benign", "borderline"] * 50
    assert evenly(list(enumerate(mixed)), 10, lambda item: item[1]) == list(enumerate(mixed))[:10], "mixed already"
    every = packaged("english").prompts
    taken = Counter(prompt.kind for prompt in packaged("english", first=29).prompts)
    whole = Counter(prompt.kind for prompt in every)
    assert all(abs(2 * taken[kind] - number) <= 2 for kind, number in whole.items())
    assert [one for one in every if one in packaged("english", first=29).prompts] == list(
        packaged("english", first=29).prompts
    ), "in the order of the file"


def test_of_more_than_six_written_answers_each_seed_draws_its_six(tmp_path: Path) -> None:
    drawn = [written_answers(EXAMPLES, seed) for seed in range(6)]
    assert all(len({one.prompt for one in of_seed}) == WRITTEN == 6 for of_seed in drawn)
    assert len({tuple(one.prompt for one in of_seed) for of_seed in drawn}) == 6
    assert written_answers(EXAMPLES, 3) == drawn[3]
    assert written_answers(EXAMPLES, 3, "a-a") != drawn[3], "SFT again draws its own"
    assert written_answers(EXAMPLES[:6], 3) == EXAMPLES[:6]
    refusals = [Example(prompt=f"Harm {n}?", response="No.") for n in range(6)]
    assert sum(one in refusals for one in with_refusals(drawn[0], refusals, 2, 0)) == 2
    file = tmp_path / "twenty.jsonl"
    file.write_text("".join(one.model_dump_json() + "\n" for one in EXAMPLES))
    assert gathered("--sft.examples", str(file)).examples == tuple(EXAMPLES)


def test_the_original_protocol_trains_on_every_pair_and_the_others_hold_a_tenth_out() -> None:
    for model in ([], ["--model", "some/model", "--judge", "none"]):
        assert load_settings([*model, "--protocol", "original"]).settings.dpo.held_out == 0
        assert load_settings(model).settings.dpo.held_out == 0.1


def test_worked_critiques_that_the_constitution_does_not_ask_for_are_warned_of() -> None:
    english = packaged("english")
    assert other_requests(english) == []
    (warning,) = other_requests(english.model_copy(update={"constitution": packaged("world").constitution}))
    number = len(english.critique_examples)
    assert warning.startswith(f"{number} of the {number} worked critiques use a request that is not in the ")
