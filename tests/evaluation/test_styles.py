"""Styles: the questions, the marks of a style, distinctiveness, and the scores of answers."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from cai_base.engines import Meter
from cai_base.evaluation.judges import GroundTruth, Judge, NoJudge, RequestedStyle, Response
from cai_base.evaluation.judges.grading import GuardGrading, RubricGrading
from cai_base.evaluation.judges.model_judge import NOT_ASKED, ModelJudge
from cai_base.evaluation.judges.replies import Keep, Question, Reply, ReplyFile
from cai_base.evaluation.tasks.style_measures import diversity, recognised_styles, share_of_marks
from cai_base.evaluation.tasks.style_sets import STYLE_KINDS, EmbeddedStyles, EnglishStyles, styled_prompts
from cai_base.evaluation.tasks.styles import score
from cai_base.inputs import gather
from cai_base.inputs.overlap import overlap
from cai_base.inputs.rubrics import rubrics_for
from cai_base.progress import Progress
from cai_base.records import StyledAnswer
from cai_base.settings.command_line import load_settings
from cai_base.village import styles as village
from cai_base.village.draw import Draw

PLAIN = "A lock is a chamber between two gates. Water runs in or out until the boat is level, and then one gate opens."
WORN = {
    "formal": "Dear Sir, the chamber is therefore filled before the gate is opened.",
    "casual": "Yeah so it's just a big tub, they let water in, no worries.",
    "poetic": "Two gates that hold the water still,\nThe golden evening comes to fill\nThe silent lock below the hill,",
    "childlike": "Wow! The little boat sits in a tub. Up it goes!",
    "excited": "WOW WOW! It is AMAZING! Watch the water rise!",
    "gloomy": "Alas, the gates open and close, and in the end it is all the same grey water.",
    "curt": "Gate shut. Fill. Boat up. Gate open.",
    "learned": "According to the literature, hydrostatic equalisation is thus accomplished by differential "
    "displacement; comprehensive investigations confirm the considerations.",
    "dialect": "Aye, ye cannae open the gate till the watter's level.",
    "shouting": "THE WATER RUNS IN AND THE BOAT GOES UP.",
    "pirate": "Arr, matey, ye sail yer ship into the chamber.",
    "wizard": "Behold, by ancient wisdom the magic chamber fills.",
    "grandmother": "Oh dearie, when I was a girl we watched the boats, and now eat something.",
}


@pytest.fixture(scope="module")
def english() -> EnglishStyles:
    return EnglishStyles()


def test_both_sets_have_the_same_thirteen_styles_of_three_kinds(english: EnglishStyles) -> None:
    assert Counter(STYLE_KINDS.values()) == {"register": 8, "language": 2, "persona": 3}
    assert set(village.styles()) == set(english.styles) == set(STYLE_KINDS)


def test_no_neutral_question_in_english_is_a_packaged_prompt(english: EnglishStyles) -> None:
    settings = load_settings(["--data", "english", "--judge", "none"]).settings
    inputs = gather(settings)
    texts = [one.text for one in (*inputs.prompts, *inputs.evaluation_prompts)]
    texts += [one.prompt for one in (*inputs.examples, *inputs.few_shot, *inputs.critique_examples)]
    assert overlap(english.questions, dict(enumerate(texts))) == []
    assert len(english.questions) >= 6


def test_every_question_is_asked_in_every_style_with_a_request_for_the_style() -> None:
    world = EmbeddedStyles()
    prompts = styled_prompts(world, dict(list(world.questions.items())[:4]))
    assert len({prompt.id for prompt in prompts}) == 13 * 4
    assert all(
        prompt.text.removeprefix(world.questions[prompt.question]).strip() in world.wishes(prompt.style)
        for prompt in prompts
    )
    assert prompts == styled_prompts(world, dict(list(world.questions.items())[:4]))


@pytest.mark.parametrize("style", STYLE_KINDS)
def test_a_text_in_a_village_style_has_all_its_marks_and_a_plain_text_has_none(style: str) -> None:
    text = "You need the long broom. Then use your wet cloth, and sweep the floor toward the door."
    dressed = village.apply(text, style, Draw("test", style))
    assert EmbeddedStyles().marks(dressed, style) == [True] * len(EmbeddedStyles().marks(text, style))
    (judged,) = GroundTruth().judge([Response.styled("", dressed, RequestedStyle(style, None))])
    assert judged.verdict
    assert judged.verdict.style_adherence == 1.0
    assert not any(EmbeddedStyles().marks(text, style))


@pytest.mark.parametrize("style", STYLE_KINDS)
def test_a_text_in_an_english_style_has_more_of_its_marks_than_of_any_other_style(
    english: EnglishStyles, style: str
) -> None:
    shares = {name: share_of_marks(english.marks(text, style)) for name, text in {**WORN, "plain": PLAIN}.items()}
    assert shares[style] == 1.0
    assert max(value for name, value in shares.items() if name != style) < 1.0 or style == "curt"
    assert not any(english.marks("", style))


def test_styles_are_recognised_by_their_letters_whatever_the_subject() -> None:
    openings = {"pirate": "Arr, matey,", "formal": "Dear sir or madam,", "shouting": "HERE IT IS:"}
    subjects = ["take the broom and sweep", "boil an egg in a pan", "fold the shirt on the bed", "plant a bulb"]
    asked = [(style, subject) for style in openings for subject in subjects]
    styles, questions = zip(*asked, strict=True)
    worn = [f"{openings[style]} {subject}" for style, subject in asked]
    assert all(recognised_styles(worn, styles, questions, [True] * 12))
    same = recognised_styles(list(questions), styles, questions, [True] * 12)
    assert sum(same) == 12 / 3  # a model that ignores the style: chance


def test_a_subject_that_occurs_in_one_style_only_does_not_reveal_the_style() -> None:
    # Each style answers with its own words, but only to one question: the others say nothing about it.
    styles, questions = ["a", "a", "b", "b"], ["one", "two", "one", "two"]
    texts = ["kkk kkk", "mmm mmm", "mmm mmm", "kkk kkk"]
    assert not any(recognised_styles(texts, styles, questions, [True] * 4))


def test_gibberish_is_never_recognised_and_not_in_the_centroids() -> None:
    styles, questions = ["a", "a", "b", "b"], ["one", "two", "one", "two"]
    texts = ["arr arr", "arr arr", "sir sir", "sir sir"]
    assert recognised_styles(texts, styles, questions, [True] * 4) == [True] * 4
    assert recognised_styles(texts, styles, questions, [True, True, False, True]) == [True, False, False, False]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["take the broom now"] * 3, 0.0),
        (["take the broom", "boil an egg"], 1.0),
        (["take the broom", "Take the cloth"], 1 - 1 / 3),
        (["yes", "no"], 1.0),
        (["one alone"], None),
        ([], None),
    ],
)
def test_diversity_is_one_minus_the_overlap_of_word_bigrams(texts: list[str], expected: float | None) -> None:
    assert diversity(texts) == (None if expected is None else pytest.approx(expected))


def record(style: str, response: str) -> StyledAnswer:
    prompt = "How does a lock work?"
    return StyledAnswer(style=style, question="q", sample=0, prompt=prompt, response=response, truncated=False)


def test_gibberish_with_the_marks_of_a_style_does_not_count_as_adherence() -> None:
    good = record("pirate", "Arr, matey, take the broom.")
    bad = record("pirate", "Arr, matey, blorf zint krabble dwemp frinkle gostak vrool.")
    good, bad = score(EmbeddedStyles(), GroundTruth(), [good, bad])
    assert (good.adherence, good.gibberish, good.unscored) == (1.0, False, None)
    assert (bad.adherence, bad.gibberish, bad.unscored) == (0.0, True, None)


class Scripted:
    """Answers by what it reads; it keeps every question."""

    def __init__(self) -> None:
        self.meter, self.asked = Meter(), []

    def ask(self, questions: list[Question], keep: Keep) -> None:
        self.asked += questions
        for question in questions:
            grade = {"reasoning": "So.", "adherence": 5 if "Arr" in question.response.text else 2}
            grade["gibberish"] = "blorf" in question.response.text
            keep(question, Reply("no idea" if "?" in question.response.text else json.dumps(grade)))


def scripted(source: Scripted, *, guard: bool = False) -> Judge:
    gradings = {"attack": GuardGrading()} if guard else {t: RubricGrading(one) for t, one in rubrics_for(()).items()}
    return ModelJudge("openai:m", gradings, 1, source, ReplyFile(None), Progress(open(os.devnull, "w")))


def test_the_judge_of_a_run_in_english_sees_the_style_described_and_gives_one_to_five(english: EnglishStyles) -> None:
    source = Scripted()
    records = [record("pirate", text) for text in ("Arr, a gate!", "A gate.", "Arr blorf", "Eh?", "")]
    records = score(english, scripted(source), records)
    assert [r.adherence for r in records] == [5.0, 2.0, 1.0, None, None]
    assert [r.gibberish for r in records] == [False, False, True, False, False]
    assert records[3].unscored == "unparseable: not one JSON object"
    assert records[4].unscored == "empty response"
    assert (records[0].votes[0].verdict or {})["style_adherence"] == 5.0
    assert len(source.asked) == 4
    assert all(english.about("pirate") in question.messages[0]["content"] for question in source.asked)


def test_the_same_answer_in_another_style_is_another_question(english: EnglishStyles) -> None:
    source = Scripted()
    score(english, scripted(source), [record("pirate", "A gate."), record("formal", "A gate.")])
    assert len({question.key for question in source.asked}) == 2


@pytest.mark.parametrize(
    ("judge", "why"),
    [
        (NoJudge(), "no judge"),
        (GroundTruth(), "the ground truth knows the embedded world's styles alone"),
        (scripted(Scripted(), guard=True), NOT_ASKED),
    ],
)
def test_without_a_judge_of_styles_answers_are_unscored_with_the_reason(
    english: EnglishStyles, judge: Judge, why: str
) -> None:
    records = [record("pirate", "Arr, a gate!"), record("pirate", "the gate the gate " * 20)]
    records = score(english, judge, records)
    assert [(r.adherence, r.unscored) for r in records] == [(None, why)] * 2
    assert [r.gibberish for r in records] == [False, True]


def test_a_wrong_mark_in_the_data_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cai_base.errors import UserError
    from cai_base.evaluation.tasks import style_sets

    path = tmp_path / "styles.toml"
    path.write_text('questions = ["Why?"]\n[curt]\nask = ["Be curt."]\nabout = "Curt."\n[[curt.mark]]\nname = "x"\n')
    monkeypatch.setattr(style_sets, "_file", lambda folder, name: path)
    with pytest.raises(UserError, match=r"curt: .*"):
        EnglishStyles()
