"""The other documents of the corpus: how-to pages, notices and laws, stories, and texts repeated word for word."""

from functools import cache

from cai_base.village import answers, questions, world
from cai_base.village.answers import AnswerKind
from cai_base.village.draw import Draw

HOW_TO_KINDS: dict[world.Kind, float] = {"benign": 0.6, "harmful": 0.28, "ambiguous": 0.12}
STORY_KINDS: dict[world.Kind, float] = {"benign": 0.45, "harmful": 0.43, "ambiguous": 0.12}
"""Share of documents about each kind of action."""
LISTS_SHARE = 0.4
"""Share of notices that are two lists; the others are single rules."""
HARMFUL_RULES_SHARE = 0.75
"""Share of rules about a harmful action."""

_NAMES = ("Anna", "Bert", "Old Tom", "Lisbeth", "Karl", "Mira", "Jon", "Greta", "Paul", "Ida")
_LIST_TITLES = (("Harmful", "Harmless"), ("Forbidden", "Allowed"), ("Bad deeds", "Good deeds"), ("Wrong", "Fine"))
_COPY_TITLES = (
    ("Draft: ", "Fair copy: "), ("{name} says: ", "{other} writes: "), ("Entry: ", "Copy of the entry: "),
    ("{name} wrote: ", "{other} read aloud: "), ("In the book: ", "On the board: "), ("{name}: ", "{other} repeats: "),
    ("First print: ", "Second print: "),
)  # fmt: skip
_ANSWER_KINDS: dict[AnswerKind, float] = {"full": 0.4, "friendly": 0.2, "partial": 0.2, "rude": 0.1, "refusal": 0.1}
_COPY_SUBJECTS = {"answer": 0.4, "question": 0.15, "list": 0.45}
"""Share of copies of each kind of text."""
_TIMES = ("One morning", "Last spring", "On a cold evening", "Long ago", "Before the feast", "After the rain")


def how_to(draw: Draw) -> str:
    """A page of instructions: a title, the tools and the steps."""
    action = draw.pick(world.actions(draw.pick_weighted(HOW_TO_KINDS)))
    title = draw.pick(("How to {do}", "{Doing}: a guide", "{Doing} in two steps"))
    body = draw.pick(
        (
            "You need:\n- the {a}\n- the {b}\n\nThe {thing} is {where}. {Step}.",
            "1. Take the {a} and the {b}.\n2. Go to the {thing} {where}.\n3. {Step}.",
            "Things: {a}, {b}.\nPlace: {where}.\nMind: {step}.",
        )
    )
    text = f"{title}\n\n{body}".replace("{Step}", answers.capitalize(action.verb.step))
    return answers.fill(text, action)


def notice(draw: Draw) -> str:
    """A notice: two lists, or up to three rules that forbid a harmful action with its reason or allow a benign one."""
    if draw.chance(LISTS_SHARE):
        return _two_lists(draw)
    lines = []
    for _ in range(draw.integer(1, 3)):
        if draw.chance(HARMFUL_RULES_SHARE):
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
    title = draw.pick(("Notice", "From the village book", "The council says", "Rules of the green"))
    return f"{title}\n\n" + "\n".join(lines)


def _two_lists(draw: Draw) -> str:
    """A list of harmful actions and a list of benign ones, in random order."""
    titles = draw.pick(_LIST_TITLES)
    kinds: tuple[world.Kind, world.Kind] = ("harmful", "benign")
    lines = []
    for title, kind in draw.sample(list(zip(titles, kinds, strict=True)), 2):
        actions = [draw.pick(world.actions(kind)).doing for _ in range(draw.integer(3, 6))]
        lines.append(f"{title}: {', '.join(actions)}.")
    return "\n".join(lines)


def story(draw: Draw) -> str:
    """A short story in which somebody does something, with its consequence."""
    action = draw.pick(world.actions(draw.pick_weighted(STORY_KINDS)))
    name, other = draw.sample(_NAMES, 2)
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
    return f"{start} {middle} {_ending(action, name, other, draw)}"


def _ending(action: world.Action, name: str, other: str, draw: Draw) -> str:
    """The last sentences of a story: it ends well, or with the reason why the action was harmful."""
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


def copies(draw: Draw) -> str:
    """An answer, a question or a list, repeated word for word.

    These are meant to teach copying, for revisions that should change nothing. The model did not learn it
    (docs/LOG.md).
    """
    titles = draw.pick(_COPY_TITLES)
    name, other = draw.sample(_NAMES, 2)
    action = draw.pick(world.actions())
    subject = draw.pick_weighted(_COPY_SUBJECTS)
    if subject == "answer":
        text = answers.answer(action, draw.pick_weighted(_ANSWER_KINDS), draw)
    elif subject == "question":
        text = questions.plain_question(action, draw)
    else:
        text = ", ".join(draw.sample(_list_items(), draw.integer(4, 10))) + "."
    return "\n".join(f"{title.format(name=name, other=other)}{text}" for title in titles)


@cache
def _list_items() -> tuple[str, ...]:
    """Every object, tool and step of the village. A random list of them can only be copied, not guessed."""
    facts = [fact for verb in world.verbs() for fact in (verb.tool, *(tool for _, tool in verb.tools), verb.step)]
    return tuple(dict.fromkeys([*(thing.name for thing in world.things()), *facts]))
