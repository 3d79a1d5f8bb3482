"""The measurement of abilities: what an ideal model and a useless one score."""

import re

import pytest
from scipy import stats

from cai_base.organism import abilities, ability_table
from cai_base.organism.abilities import Abilities, principles
from cai_base.organism.ability_table import Share
from cai_base.village import answers, judge, styles, world
from cai_base.village.draw import Draw
from cai_base.village.principles import draw_principle

COUNT = 30
HARM = {
    principle["critique_request"]
    for principle in principles("constitution")
    if principle["category"] in abilities.HARM_CATEGORIES
}
PLACEBO = {principle["critique_request"] for principle in principles("placebo")}


class Model:
    """Answers with the generators of the village, as a model would that learned everything its corpus teaches."""

    def __init__(self) -> None:
        self.texts = 0

    def __call__(self, prompts, purpose, limit):
        self.texts += len(prompts)
        return [self.text(prompt, Draw("test", purpose, index)) for index, prompt in enumerate(prompts)]

    def text(self, prompt, draw):
        parts = re.split(r"(?:^|\n\n)(?:User|Assistant|Critique Request|Critique|Revision Request|Revision):", prompt)
        if prompt.endswith("is"):
            return self.choice(prompt)
        if prompt.endswith("Critique:"):
            return self.critique(*(part.strip() for part in parts[1:4]), draw)
        if prompt.endswith("Revision:"):
            return self.revision(*(part.strip() for part in parts[1:5]), draw)
        return self.answer(parts[-2].strip(), draw)

    def answer(self, question, draw):
        action = world.find_action(question)
        if action is None:
            return answers.do_not_know("that", draw)
        text = answers.answer(action, "friendly", draw)
        requests = [style for style in styles.styles() if question.endswith(tuple(styles.requests(style)))]
        return styles.apply(text, requests[0], draw) if requests else text

    def choice(self, prompt):
        question, first, second, _ = prompt.split("\n\n")[-1].split("\n", 3)
        refuses = [judge.truth(question, option).facts == 0 for option in (first, second)]
        harmless = "harmless" in prompt.split("\n\n")[-1]
        return "(A)." if refuses[0] == harmless and (harmless or judge.truth(question, first).facts == 3) else "(B)."

    def critique(self, question, answer, request, draw):
        action = world.find_action(question)
        refused = judge.truth(question, answer).refused
        if request in PLACEBO:
            return "The spelling is right and the lines are even."
        if refused == (action.kind == "harmful"):
            return "There is no harm in it." if not refused else "It says no, as it should. Nothing needs to change."
        return "It refuses for no good reason." if refused else "The reply is harmful." if request in HARM else "Good."

    def revision(self, question, answer, request, critique, draw):
        action = world.find_action(question)
        if critique == "The reply is harmful.":
            return answers.refusal(action, draw)
        return answers.answer(action, "full", draw) if critique.startswith("It refuses") else answer


class Refuser(Model):
    """Refuses every question, and revises nothing."""

    def answer(self, question, draw):
        action = world.find_action(question)
        return answers.refusal(action, draw) if action else "I will not help with that."

    def critique(self, question, answer, request, draw):
        return "The reply is harmful."

    def revision(self, question, answer, request, critique, draw):
        return answer

    def choice(self, prompt):
        return "I will not say."


def shares_of(model, **arguments):
    return abilities.tally(Abilities(model, **{"count": COUNT} | arguments).cases())


def test_an_ideal_model_meets_every_target_with_exactly_the_predicted_number_of_texts():
    model = Model()
    shares = shares_of(model)
    assert [row.name for row in ability_table.rows() if row.met(shares) is False] == []
    assert model.texts == abilities.most_texts(COUNT)
    assert all(share.total >= COUNT for name, share in shares.items() if name != "flagged, quality")
    assert shares["placebo equal 4"].rate == 1
    assert shares["placebo refused 4"].rate == 0


def test_a_model_that_refuses_everything_misses_the_targets():
    shares = shares_of(Refuser())
    unmet = {row.name for row in ability_table.rows() if row.met(shares) is False}
    for name in ("benign helped", "benign refused", "wrong refusal repaired", "harmful complied, plain"):
        assert name in unmet
    for name in ("benign refused 4", "style pirate", "styles", "not known", "better chosen", "flagged, harm"):
        assert name in unmet


def test_questions_depend_on_seed_and_split_and_on_nothing_else():
    class Recorder(Model):
        def __init__(self):
            super().__init__()
            self.prompts = []

        def __call__(self, prompts, purpose, limit):
            self.prompts.extend(prompts)
            return super().__call__(prompts, purpose, limit)

    runs = []
    for arguments in ({}, {}, {"seed": 1}, {"split": "dev"}):
        recorder = Recorder()
        shares_of(recorder, count=3, **arguments)
        runs.append(recorder.prompts)
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert runs[0] != runs[3]


def test_one_of_the_two_solved_comparisons_has_each_letter_and_both_are_about_other_actions():
    letters = []
    for index in range(40):
        prompt, better = Abilities(Model(), count=1).comparison(index)
        solved = re.findall(r"The better answer is \((.)\)\.", prompt)
        assert sorted(solved) == ["A", "B"]
        actions = [world.find_action(part.split("\n")[0]) for part in prompt.split("\n\n")]
        assert actions[-1] not in actions[:-1]
        letters.append(better)
    assert letters.count("A") == 20


@pytest.mark.parametrize(("hits", "total"), [(0, 7), (3, 7), (500, 500), (433, 500)])
def test_intervals_are_wilson_intervals(hits, total):
    z = stats.norm.ppf(0.975)
    for bound in Share(hits, total).interval:  # Wilson's bounds solve (p - hits/n)^2 = z^2 p (1 - p) / n
        assert (bound - hits / total) ** 2 == pytest.approx(z**2 * bound * (1 - bound) / total, abs=1e-9)
    low, high = Share(hits, total).interval
    assert low <= hits / total <= high


def test_the_interval_of_no_cases_is_everything():
    assert Share(0, 0).interval == (0.0, 1.0)


@pytest.mark.parametrize(
    ("hits", "met"), [([9, 5, 3, 2, 1], True), ([9, 5, 6, 2, 1], False), ([99, 80, 60, 40, 20], False)]
)
def test_the_share_of_harmful_answers_must_fall_in_every_round_and_end_low(hits, met):
    shares = {f"harmful left {number}": Share(count, 100) for number, count in enumerate(hits)}
    rows = [row for row in ability_table.rows() if row.name in shares]
    assert all(row.met(shares) is not False for row in rows) == met


@pytest.mark.parametrize("number", range(40))
def test_saying_that_one_does_not_know_is_distinguished_from_refusing_and_answering(number):
    draw = Draw("test", number)
    assert abilities.says_not_knowing(answers.do_not_know("a laptop", draw))
    action = draw.pick(world.actions())
    for kind in ("friendly", "partial", "rude", "refusal", "groundless"):
        assert not abilities.says_not_knowing(answers.answer(action, kind, draw))


def test_the_placebo_constitution_is_about_letters_and_its_requests_are_not_in_the_corpus():
    placebo = principles("placebo")
    requests = [principle[f"{field}_request"] for principle in placebo for field in ("critique", "revision")]
    assert len(set(requests)) == len(requests) >= 16
    grammar = world.read_toml("principles")
    sections = (grammar["placebo"], grammar["late"]["placebo"])
    templates = {text.lower() for section in sections for part in ("critique", "revision") for text in section[part]}
    assert not templates & {request.lower() for request in requests}
    for request in requests:
        assert not set(re.findall(r"\w+", request.lower())) & {"harm", "harmful", "wrong", "safe", "kind", "refuse"}
    for late in (False, True):
        sample = [draw_principle("placebo", Draw("test", number), late=late) for number in range(200)]
        text = " ".join(f"{principle.critique_request} {principle.revision_request}" for principle in sample)
        assert not any(request in text for request in requests)
