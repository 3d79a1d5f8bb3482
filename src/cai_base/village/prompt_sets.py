"""The generator of the packaged prompt sets. A test compares its output with the files in `data/world/`."""

from collections.abc import Iterator, Sequence
from typing import Literal, TypeVar

from cai_base.village import answers, questions, world
from cai_base.village.comparisons import ACTION_KIND, Criterion, two_answers
from cai_base.village.draw import Draw

PromptKind = Literal["benign", "jailbreak", "direct", "borderline", "sensitive"]
PromptLine = dict[str, str]
"""One line of a prompt set's JSONL file."""

TEST_COUNTS: dict[PromptKind, int] = {"benign": 10, "jailbreak": 24, "direct": 8, "borderline": 8, "sensitive": 8}
"""Prompts of each kind in the test set, as in the original evaluation: four for each jailbreak family."""
BLOCK: dict[PromptKind, int] = {"benign": 6, "jailbreak": 6, "direct": 3, "borderline": 2, "sensitive": 3}
"""Prompts of each kind in one block. The other sets are sequences of such blocks, each shuffled on its own, so that the
first N prompts of a set have nearly the same mixture for every N."""
TRAIN_BLOCKS, DEV_BLOCKS, WIDE_BLOCKS = 65, 12, 12
FEW_SHOT, EXAMPLES = 2, 6
COMPARISONS, KNOWN_COMPARISONS = 1, 10
"""The number of comparisons per criterion: for few-shot examples, and for the check with known answers."""
SEED = 0
"""The seed of every packaged set."""
T = TypeVar("T")

_ACTION_KIND: dict[PromptKind, world.Kind] = {
    "benign": "benign",
    "jailbreak": "harmful",
    "direct": "harmful",
    "borderline": "ambiguous",
    "sensitive": "benign",
}
"""The kind of action that a prompt of each kind asks about. Sensitive prompts are benign ones in a framing."""


def few_shot() -> list[PromptLine]:
    """The two benign turns of the few-shot prefix."""
    return _turns(0, FEW_SHOT)


def examples() -> list[PromptLine]:
    """The six helpful turns for supervised fine-tuning, all benign."""
    return _turns(FEW_SHOT, FEW_SHOT + EXAMPLES)


def refusals() -> list[PromptLine]:
    """As many harmful questions as there are examples, each with a refusal and its reason."""
    draw = Draw(SEED, "prompts", "refusals", 0)
    actions = draw.sample([one for one in world.actions("harmful", "train") if one.verb.why], EXAMPLES)
    return [
        {
            "prompt": questions.plain_question(action, draw, "train"),
            "response": answers.answer(action, "refusal", draw),
        }
        for action in actions
    ]


def comparison_examples() -> list[PromptLine]:
    """Questions with a better and a worse answer, alternately harmful and benign: the few-shot examples of
    comparisons."""
    return _comparisons("comparison examples", COMPARISONS)


def known_comparisons() -> list[PromptLine]:
    """Such questions about other actions, to measure whether a model prefers the better answer."""
    return _comparisons("known comparisons", KNOWN_COMPARISONS)


def _comparisons(name: str, count: int) -> list[PromptLine]:
    draw = Draw(SEED, "prompts", name, 0)
    criteria: tuple[Criterion, Criterion] = ("harmless", "helpful")
    actions = {one: _of_different_verbs(world.actions(ACTION_KIND[one], "train"), count, draw) for one in criteria}
    records = []
    for number in range(count):
        for criterion in criteria:
            action = actions[criterion][number]
            better, worse = two_answers(action, criterion, draw)
            prompt = questions.plain_question(action, draw, "train")
            records.append({"prompt": prompt, "better": better, "worse": worse})
    return records


def _of_different_verbs(actions: Sequence[world.Action], count: int, draw: Draw) -> list[world.Action]:
    by_verb = {action.verb: action for action in draw.sample(actions, len(actions))}
    return list(by_verb.values())[:count]


def train() -> list[PromptLine]:
    """The method's prompts."""
    return _blocks("train", TRAIN_BLOCKS)


def dev() -> list[PromptLine]:
    """The prompts for choices made by hand."""
    return _blocks("dev", DEV_BLOCKS)


def test() -> list[PromptLine]:
    """The evaluation set of reported figures, sorted by kind and family."""
    writer = _PromptWriter("test")
    records = [writer.line(kind) for kind, count in TEST_COUNTS.items() for _ in range(count)]
    kinds, families = [*map(str, TEST_COUNTS)], ("", *questions.FAMILIES)
    return sorted(records, key=lambda record: (kinds.index(record["kind"]), families.index(record.get("family", ""))))


def test_wide() -> list[PromptLine]:
    """A larger evaluation set of the test split, in blocks as `dev`, for studies that need narrow intervals."""
    return _blocks("test", WIDE_BLOCKS)


def _turns(start: int, stop: int) -> list[PromptLine]:
    """Questions and friendly answers about the reserved actions from number `start` up to `stop`."""
    draw = Draw(SEED, "prompts", "turns", start)
    forms = draw.sample(questions.forms("train"), stop - start)
    return [
        {"prompt": form.format(do=action.do, doing=action.doing), "response": answers.answer(action, "friendly", draw)}
        for form, action in zip(forms, _reserved_actions()[start:stop], strict=True)
    ]


def _reserved_actions() -> list[world.Action]:
    """Benign train actions that occur only in the few-shot prefix and the examples, in no prompt."""
    candidates = world.actions("benign", "train")
    return Draw(SEED, "prompts", 0, "reserved").sample(candidates, FEW_SHOT + EXAMPLES)


def _blocks(split: world.Split, blocks: int) -> list[PromptLine]:
    writer = _PromptWriter(split)
    records: list[PromptLine] = []
    for number in range(blocks):
        block = [writer.line(kind) for kind, count in BLOCK.items() for _ in range(count)]
        records += Draw(SEED, "prompts", f"{split} block {number}", "order").sample(block, len(block))
    return records


class _PromptWriter:
    """Writes the prompts of one split: no text twice, and all actions and framings about equally often."""

    def __init__(self, split: world.Split) -> None:
        self._split = split
        self._draw = Draw(SEED, "prompts", split, "texts")
        kinds: tuple[world.Kind, ...] = ("benign", "harmful", "ambiguous")
        self._actions = {kind: self._cycle_actions(kind) for kind in kinds}
        self._families = self._cycle(questions.FAMILIES)
        self._framings = {
            family: self._cycle(questions.framings(family, split))
            for family in (*questions.FAMILIES, questions.ALARMING)
        }
        self._counts: dict[str, int] = {}
        self._texts: set[str] = set()
        self._sensitive = 0

    def line(self, kind: PromptKind) -> PromptLine:
        """The next prompt of this kind."""
        family = next(self._families) if kind == "jailbreak" else None
        framing = self._framing(kind, family)
        action = next(self._actions[_ACTION_KIND[kind]])
        text = self._text(action, framing)
        while text in self._texts:
            text = self._text(next(self._actions[_ACTION_KIND[kind]]), framing)
        self._texts.add(text)
        name = f"{kind}-{family}" if family else kind
        self._counts[name] = self._counts.get(name, 0) + 1
        record = {"id": f"{name}-{self._counts[name]}", "kind": kind}
        return record | ({"family": family} if family else {}) | {"text": text}

    def _framing(self, kind: PromptKind, family: str | None) -> str | None:
        """The framing of a prompt, or None; sensitive prompts have an alarming and a jailbreak framing in turn."""
        if kind == "sensitive":
            self._sensitive += 1
            family = questions.ALARMING if self._sensitive % 2 else self._draw.pick(questions.FAMILIES)
        return next(self._framings[family]) if family else None

    def _text(self, action: world.Action, framing: str | None) -> str:
        if framing is None:
            return questions.plain_question(action, self._draw, self._split)
        return questions.framed_question(action, framing, self._draw, self._split)

    def _cycle_actions(self, kind: world.Kind) -> Iterator[world.Action]:
        reserved_actions = _reserved_actions()
        return self._cycle([action for action in world.actions(kind, self._split) if action not in reserved_actions])

    def _cycle(self, items: Sequence[T]) -> Iterator[T]:
        """The items repeatedly, each time in a new random order."""
        while True:
            yield from self._draw.sample(items, len(items))
