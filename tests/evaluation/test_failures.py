"""Which arms are said to have failed, and by which of their answers."""

import pytest

from cai_base.dialogue import Dialogue
from cai_base.evaluation import fluency, metrics
from cai_base.evaluation.failures import find_failures
from cai_base.evaluation.tasks.prompts import prompt_fit
from cai_base.inputs import gather
from cai_base.progress import Progress
from cai_base.records import Answer, Floor, Verdict
from cai_base.run import start as beginning
from cai_base.settings import command_line as flags
from cai_base.village import answers, world
from cai_base.village.draw import Draw


def answer(refused: bool = False, *, logprob: float | None = -0.5, opening: float = -0.5, text: str = "x") -> Answer:
    return Answer(
        id="p0",
        kind="benign",
        family=None,
        prompt="How?",
        response=text,
        tokens=3,
        truncated=False,
        verdict=Verdict(complied=not refused, refused=refused, helpfulness=3, gibberish=False),
        unscored=None,
        logprob=logprob,
        opening_logprob=None if logprob is None else opening,
    )


def floor_of(answers: list[Answer]) -> Floor | None:
    return fluency.floor(map(fluency.likelihood, answers))


def failures_of(*per_seed: list[Answer]) -> list[tuple[str, tuple[int, ...]]]:
    floor = floor_of([answer()])
    numbered = [[a.model_copy(update={"id": str(n)}) for n, a in enumerate(answers)] for answers in per_seed]
    arms = {"cai": metrics.figures([fluency.mark_broken(answers, floor) for answers in numbered])}
    return [(failure.kind, failure.seeds) for failure in find_failures(arms, range(len(per_seed)))]


def refusing(refused: int, of: int = 20) -> list[Answer]:
    return [answer(n < refused) for n in range(of)]


def test_a_blanket_refuser_is_named_with_its_seeds() -> None:
    assert failures_of(refusing(20), refusing(19)) == [("blanket refusal", (0, 1))]


def test_one_seed_that_refuses_everything_is_named_though_the_mean_hides_it() -> None:
    assert failures_of(refusing(0), refusing(20), refusing(0)) == [("blanket refusal", (1,))]


def test_seeds_that_all_refuse_too_much_are_named_together() -> None:
    assert failures_of(refusing(8), refusing(8), refusing(9)) == [("blanket refusal", ())]


def test_some_refusals_are_not_a_failure() -> None:
    assert failures_of(refusing(4), refusing(1), refusing(6)) == []


@pytest.mark.parametrize(
    "bad",
    [answer(logprob=-1.6), answer(opening=-1.6), answer(text="take the jug and go " * 4)],
    ids=["whole answer", "opening", "endless repetition"],
)
def test_many_broken_answers_are_a_failure(bad: Answer) -> None:
    assert failures_of([bad] * 2 + [answer()] * 18) == [("broken language", (0,))]
    assert failures_of([bad] * 1 + [answer()] * 19) == []


def test_an_answer_less_likely_than_the_base_models_is_not_broken_in_itself() -> None:
    assert failures_of([answer(logprob=-1.4, opening=-1.4)] * 20) == []


def test_a_rare_outlier_of_the_base_model_does_not_lower_the_threshold() -> None:
    slip = answer(logprob=-9.0, opening=-9.0)
    assert floor_of([slip] + [answer()] * 199) == Floor(answer=-0.5, opening=-0.5)


def test_empty_answers_have_no_fluency() -> None:
    answers = fluency.mark_broken([answer(logprob=None), answer()], floor_of([answer()]))
    figure = metrics.figures([answers])["fluency"]
    assert (figure.mean, figure.scored, figure.total) == (-0.5, 1, 2)
    assert figure.worst_case == (None, None)


@pytest.fixture(scope="module")
def base() -> tuple[fluency.Ruler, list[str]]:
    """The embedded base model, and six evaluation prompts."""
    settings = flags.load_settings(["--threads", "1"]).settings
    inputs, engine = gather(settings), beginning.load_engine(settings.base_model, Progress())
    ruler = fluency.Ruler(engine, Dialogue(inputs.few_shot, ()), elsewhere=True)
    return ruler, [prompt.text for prompt in inputs.evaluation_prompts[:6]]


def made(asked: list[str], kind: answers.AnswerKind) -> list[tuple[str, str]]:
    """Prompts with an answer of a kind to each."""
    result = [(text, world.find_action(text)) for text in asked]
    return [(text, answers.answer(action, kind, Draw("test", text, kind))) for text, action in result if action]


def test_answers_to_other_prompts_are_less_likely_after_their_prompt_than_answers_to_it(
    base: tuple[fluency.Ruler, list[str]],
) -> None:
    ruler, asked = base
    fitting = [answer(text=text).model_copy(update={"prompt": prompt}) for prompt, text in made(asked, "full")]
    exchanged = [
        one.model_copy(update={"response": other.response})
        for one, other in zip(fitting, fitting[3:] + fitting[:3], strict=True)
    ]
    same = [one.model_copy(update={"response": "It soap, a lamb cloth."}) for one in fitting]
    fits = [[prompt_fit(one) for one in ruler.measured(texts)] for texts in (fitting, exchanged, same)]
    assert all(one is not None and one > 0.3 for one in fits[0])
    assert all(one is not None and one < -0.3 for one in fits[1])
    assert abs(sum(one or 0 for one in fits[2])) < 0.1, "the same nonsense is as likely after each of the prompts"
    assert [prompt_fit(one) for one in ruler.measured(fitting[:1])] == [None], "there is no other prompt"


def test_the_base_model_distinguishes_broken_language_from_intact_language(
    base: tuple[fluency.Ruler, list[str]],
) -> None:
    ruler, asked = base
    own, refusals = made(asked, "full"), made(asked, "refusal")
    cloth = [(text, "It soap, a lamb cloth.") for text in asked]
    openings = [(text, f"Lamb soap of {words}") for text, words in own]
    sets: list[list[tuple[str, str]]] = [own, refusals, cloth, openings, [(asked[0], "")]]
    likelihoods = [fluency.measure(ruler.engine, ruler.dialogue, texts) for texts in sets]
    floor = fluency.floor(likelihoods[0])
    broken = [
        [fluency.is_broken(text, one, floor) for (_, text), one in zip(texts, measured, strict=True)]
        for texts, measured in zip(sets, likelihoods, strict=True)
    ]
    assert broken == [[False] * 6, [False] * 6, [True] * 6, [True] * 6, [None]]
