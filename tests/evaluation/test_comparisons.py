"""Comparisons by log-probability: how each published form is read, and what the figures say."""

import json
from pathlib import Path
from typing import Any

import pytest

from cai_base.cli import main
from cai_base.errors import UserError
from cai_base.evaluation.tasks import comparisons as hhh
from cai_base.records import ComparedAnswers


def read(path: Path, *lines: str) -> hhh.Comparisons:
    path.write_text("\n".join(lines), encoding="utf-8")
    return hhh.read(path)


def comparison(correct: str, incorrect: str, **more: str) -> str:
    return json.dumps({"prompt": "", "text_correct": correct, "text_incorrect": incorrect, **more})


def test_comparisons_are_read_with_their_earlier_turns(tmp_path: Path) -> None:
    before = "\n\nHuman: Who mills?\n\nAssistant: The miller.\n\nHuman: What?\n\nAssistant:"
    lines = [
        comparison(f"{before} Grain and oats.", f"{before} Oats."),
        comparison("\n\nHuman: a\n\nAssistant: b", "\n\nHuman: a\n\nAssistant: bc", category="honest"),
    ]
    reading = read(tmp_path / "hhh.jsonl", *lines).items
    assert reading[0].before == (("Who mills?", "The miller."),)
    assert (reading[0].question, dict(reading[0].answers)) == (
        "What?",
        {"correct": "Grain and oats.", "incorrect": "Oats."},
    )
    assert reading[0].categories == ("several turns", "better is longer")
    assert reading[1].categories == ("honest", "one question", "better is not longer")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"text_correct": "x"}', "h.jsonl:1: there is no field 'text_incorrect'; a file of hhh has text_correct and"),
        (comparison("Hello", "x"), "h.jsonl:1: the field 'text_correct' is no conversation"),
        (
            '{"prompt": "x", "corrects": [], "incorrects": ["y"]}',
            "h.jsonl:1: the field 'corrects' is a list; it must be",
        ),
        (
            '{"prompt": "x", "corrects": "y", "incorrects": ["y"]}',
            "h.jsonl:1: the field 'corrects' is 'y'; it must be a",
        ),
        ('{"chosen": "x", "rejected": "y"}', "h.jsonl: there are no comparisons in it"),
        (comparison("x", "y", chosen="a", rejected="b"), "by chosen and rejected; keep the fields of one of them"),
        (comparison("\n\nHuman: a\n\nAssistant:", "x"), "h.jsonl:1: the field 'text_correct' is no conversation"),
        (
            comparison("\n\nHuman: a\n\nAssistant: b", "\n\nHuman: c\n\nAssistant: d"),
            "h.jsonl:1: text_correct and text_incorrect differ before their last answer",
        ),
    ],
)
def test_a_wrong_comparison_is_one_message_with_its_line(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(UserError) as error:
        read(tmp_path / "h.jsonl", line)
    assert says in str(error.value)


MARKED = "Here is a conversation:\n\nHuman: Who mills?\n\nAssistant: I.\n\n (A) harmful\n (B) ethical\nThe answer is:"
USER = {"role": "user", "content": "Who mills?"}
MILLER, SMITH = ({"role": "assistant", "content": f"The {name}."} for name in ("miller", "smith"))
ASKED = "\n\nHuman: Who mills?\n\nAssistant:"


@pytest.mark.parametrize(
    ("row", "question", "answers"),
    [
        (
            {"prompt": MARKED, "corrects": [" (B)"], "incorrects": [" (A)"]},
            MARKED,
            {"correct": "(B)", "incorrect": "(A)"},
        ),
        (
            {"Incorrects": [" The smith.", "I."], "CORRECTS": [" The miller."], "prompt": ASKED.strip()},
            "Who mills?",
            {"correct": "The miller.", "incorrect": "The smith.", "incorrect 2": "I."},
        ),
        ({"chosen": f"{ASKED} The miller.", "rejected": f"{ASKED} The smith."}, "Who mills?", None),
        ({"Rejected": f"{ASKED} The smith.", "Chosen": f"{ASKED} The miller.", "score": 3}, "Who mills?", None),
        ({"prompt": "Who mills?", "chosen": "The miller.", "rejected": "The smith."}, "Who mills?", None),
        ({"prompt": ASKED, "chosen": " The miller.", "rejected": " The smith."}, "Who mills?", None),
        ({"prompt": "Who mills?", "chosen": [USER, MILLER], "rejected": [USER, SMITH]}, "Who mills?", None),
        ({"prompt": [USER], "chosen": [MILLER], "rejected": [SMITH]}, "Who mills?", None),
    ],
)
def test_files_of_choices_and_of_pairs_are_compared_like_hhh(
    tmp_path: Path, row: dict[str, Any], question: str, answers: dict[str, str] | None
) -> None:
    path = tmp_path / "mine.jsonl"
    reading = read(path, json.dumps(row))
    assert hhh.recognised(path)
    (item,) = reading.items
    assert (reading.name, item.id, item.before, item.question) == ("mine", "mine-1", (), question)
    assert dict(item.answers) == (answers or {"correct": "The miller.", "incorrect": "The smith."})


def test_the_438_comparisons_use_the_conversations_although_they_have_choices_too(tmp_path: Path) -> None:
    choices = {"prompt": "Which is better?", "corrects": [" (A)"], "incorrects": [" (B)"]}
    row = {**choices, "text_correct": f"{ASKED} The miller.", "text_incorrect": f"{ASKED} The smith."}
    reading = read(tmp_path / "438HHHEvaluations.jsonl", json.dumps(row))
    assert (reading.name, reading.items[0].question) == ("hhh", "Who mills?")


def test_pairs_that_compare_nothing_are_left_out_and_counted(tmp_path: Path) -> None:
    other = f"\n\nHuman: Who bakes?\n\nAssistant: The smith.{ASKED}"
    pairs = [
        (f"{other} a", f"{other} b"),
        (f"{ASKED} a", f"{ASKED} a"),
        (f"{ASKED} a", f"{ASKED}"),
        (f"{ASKED} a", "\n\nHuman: Who?\n\nAssistant: b"),
    ]
    lines = [json.dumps({"chosen": chosen, "rejected": rejected}) for chosen, rejected in pairs]
    reading = read(tmp_path / "test.jsonl", *lines)
    assert [(item.before, item.categories) for item in reading.items] == [
        ((("Who bakes?", "The smith."),), ("several turns", "better is not longer"))
    ]
    assert reading.left_out == {
        "chosen and rejected are the same": 1,
        "rejected is no conversation that ends with an answer": 1,
        "chosen and rejected differ before their last answer": 1,
    }


def test_of_several_answers_the_most_probable_decides() -> None:
    def right(logprobs: dict[str, float]) -> float:
        one = ComparedAnswers(
            id="a",
            categories=("9 answers", "one question", "better is not longer"),
            tokens=dict.fromkeys(logprobs, 1),
            unscored=None,
            logprob=logprobs,
        )
        return float(hhh.Tables([[one]], one_model=True).figures()["summed"].mean or 0.0)

    assert right({"correct": -2.0, "incorrect": -3.0, "incorrect 2": -1.0}) == 0.0
    assert right({"correct": -4.0, "correct 2": -0.5, "incorrect": -3.0, "incorrect 2": -1.0}) == 1.0


def record(better: float, worse: float, tokens: tuple[int, int], category: str) -> ComparedAnswers:
    sides = ("correct", "incorrect")
    return ComparedAnswers(
        id=category,
        categories=("one question", category),
        tokens=dict(zip(sides, tokens, strict=True)),
        unscored=None,
        logprob=dict(zip(sides, (better, worse), strict=True)),
    )


def test_a_sum_favours_short_answers_and_a_mean_does_not() -> None:
    longer = record(-10.0, -8.0, (10, 4), "longer")
    shorter = record(-4.0, -9.0, (2, 9), "shorter")
    categories = ("one question", "longer")
    unfit = ComparedAnswers(id="unfit", categories=categories, tokens=None, logprob=None, unscored="too long")
    tables = hhh.Tables([[longer, shorter, unfit]] * 3, one_model=True)
    figures = tables.figures()
    assert (figures["summed"].mean, figures["normalised"].mean) == (0.5, 0.5)
    assert figures["summed"].by_category["longer"].mean == 0.0
    assert figures["normalised"].by_category["longer"].mean == 1.0
    assert (figures["summed"].scored, figures["summed"].total) == (2, 3)
    assert figures["summed"].worst_case == pytest.approx([1 / 3, 2 / 3])
    assert figures["summed"].ci95 == pytest.approx([0.0126, 0.9874], abs=1e-3)  # Clopper-Pearson, 1 of 2
    seeds = hhh.Tables([[longer, shorter, unfit], None, [shorter, shorter, unfit]], one_model=False)
    assert seeds.figures()["summed"].per_seed == (0.5, None, 1.0)
    assert (seeds.figures()["summed"].scored, seeds.figures()["summed"].total) == (4, 6)
    assert seeds.less(tables)["summed"].difference == pytest.approx(0.25)


def test_no_judge_may_be_named_for_a_suite_that_has_none(tmp_path: Path) -> None:
    file = tmp_path / "corrects.jsonl"
    file.write_text('{"prompt": "Who mills?", "corrects": ["The miller."], "incorrects": ["The smith."]}\n')
    flags = ["--judge", "none", "--out", str(tmp_path / "out")]
    assert main(["evaluate", "organism", "--suite", str(file), *flags]) == 0
