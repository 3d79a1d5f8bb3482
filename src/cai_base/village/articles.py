"""What else stands in the village's web: how-tos, notices and laws, stories, and copies of all sorts of things."""

from functools import cache

from cai_base.village import answers, questions, world
from cai_base.village.answers import AnswerKind
from cai_base.village.draw import Draw

_NAMES = ("Anna", "Bert", "Old Tom", "Lisbeth", "Karl", "Mira", "Jon", "Greta", "Paul", "Ida")
_LISTS = (("Harmful", "Harmless"), ("Forbidden", "Allowed"), ("Bad deeds", "Good deeds"), ("Wrong", "Fine"))
_COPIES = (
    ("Draft: ", "Fair copy: "), ("{name} says: ", "{other} writes: "), ("Entry: ", "Copy of the entry: "),
    ("{name} wrote: ", "{other} read aloud: "), ("In the book: ", "On the board: "), ("{name}: ", "{other} repeats: "),
    ("First print: ", "Second print: "),
)  # fmt: skip
_COPIED_ANSWERS: dict[AnswerKind, float] = {"full": 0.4, "friendly": 0.2, "partial": 0.2, "rude": 0.1, "refusal": 0.1}
_TIMES = ("One morning", "Last spring", "On a cold evening", "Long ago", "Before the feast", "After the rain")


def how_to(draw: Draw) -> str:
    """A page of instructions with a title, a list of things and steps."""
    action = draw.pick(world.actions(draw.weighted({"benign": 0.6, "harmful": 0.28, "ambiguous": 0.12})))
    title = draw.pick(("How to {do}", "{Doing}: a guide", "{Doing} in two steps"))
    body = draw.pick(
        (
            "You need:\n- the {a}\n- the {b}\n\nThe {thing} is {where}. {Step}.",
            "1. Take the {a} and the {b}.\n2. Go to the {thing} {where}.\n3. {Step}.",
            "Things: {a}, {b}.\nPlace: {where}.\nMind: {step}.",
        )
    )
    text = f"{title}\n\n{body}".replace("{Step}", answers.capital(action.verb.step))
    return answers.fill(text, action)


def notice(draw: Draw) -> str:
    """A law or notice: a harmful verb is forbidden for its reason, a benign one welcome; or lists of both."""
    if draw.chance(0.4):
        return _lists(draw)
    lines = []
    for _ in range(draw.integer(1, 3)):
        if draw.chance(0.75):
            action = draw.pick(world.actions("harmful"))
            line = draw.pick(
                (
                    "It is forbidden to {do}, because {why}.",
                    "Law: nobody may {do}. {Why}.",
                    "{Doing} is a crime here, for {why}.",
                    "Whoever is caught {doing} pays a fine: {why}.",
                )
            )
        else:
            action = draw.pick(world.actions("benign"))
            line = draw.pick(
                ("Everybody may {do}.", "Helpers are wanted for {doing} on Sunday.", "{Doing} is free for all.")
            )
        lines.append(answers.fill(line, action))
    head = draw.pick(("Notice", "From the village book", "The council says", "Rules of the green"))
    return f"{head}\n\n" + "\n".join(lines)


def _lists(draw: Draw) -> str:
    """What is good and what is bad, in two lists."""
    heads = draw.pick(_LISTS)
    kinds: tuple[world.Kind, world.Kind] = ("harmful", "benign")
    lines = []
    for head, kind in draw.some(list(zip(heads, kinds, strict=True)), 2):
        deeds = [draw.pick(world.actions(kind)).doing for _ in range(draw.integer(3, 6))]
        lines.append(f"{head}: {', '.join(deeds)}.")
    return "\n".join(lines)


def story(draw: Draw) -> str:
    """A short tale of somebody who does something, and what comes of it."""
    action = draw.pick(world.actions(draw.weighted({"benign": 0.45, "harmful": 0.43, "ambiguous": 0.12})))
    name, other = draw.some(_NAMES, 2)
    start = draw.pick(("{time} {name} wanted to {do}.", "{time} {name} had a plan for {doing}.")).format(
        time=draw.pick(_TIMES), name=name, do=action.do, doing=action.doing
    )
    middle = answers.fill(
        draw.pick(
            (
                f"{name} took the {{a}} and the {{b}} and went to the {{thing}} {{where}}.",
                f'"Bring the {{a}} and the {{b}}," said {other}, "and {{step}}."',
                f"With the {{a}} in one hand and the {{b}} in the other, {name} crept near.",
            )
        ),
        action,
    )
    return f"{start} {middle} {_outcome(action, name, other, draw)}"


def _outcome(action: world.Action, name: str, other: str, draw: Draw) -> str:
    """How a tale ends: well, or with the reason why the deed was wrong."""
    if action.kind == "harmful":
        ending = draw.pick(
            (
                '"Stop," cried {other}. "Do you not see that {why}?" So {name} went home and was ashamed.',
                "It went badly, for {why}. {name} had to say sorry to everybody.",
                "Soon the guards came, and {name} learned that {why}.",
            )
        )
    elif action.kind == "ambiguous":
        ending = draw.pick(("Some laughed and some did not.", "{other} was not sure what to think of it."))
    else:
        ending = draw.pick(
            (
                "All were pleased, {other} most of all.",
                "{other} brought tea, and they sang.",
                "It was a good day's work.",
            )
        )
    return ending.format(name=name, other=other, why=action.verb.why)


def copied(draw: Draw) -> str:
    """Something said, asked or listed, and the same once more, word for word: as scribes, clerks and pupils do."""
    first, second = draw.pick(_COPIES)
    name, other = draw.some(_NAMES, 2)
    action = draw.pick(world.actions())
    text = draw.weighted({"answer": 0.4, "question": 0.15, "list": 0.45})
    if text == "answer":
        shown = answers.answer(action, draw.weighted(_COPIED_ANSWERS), draw)
    elif text == "question":
        shown = questions.plain(action, draw)
    else:
        shown = ", ".join(draw.some(_words(), draw.integer(4, 10))) + "."
    return "\n".join(f"{head.format(name=name, other=other)}{shown}" for head in (first, second))


@cache
def _words() -> tuple[str, ...]:
    """Things, tools and steps of the village, for lists that nobody can foresee."""
    tools = [tool for verb in world.verbs() for tool in (verb.tool, *(each for _, each in verb.tools), verb.step)]
    return tuple(dict.fromkeys([*(thing.name for thing in world.things()), *tools]))
