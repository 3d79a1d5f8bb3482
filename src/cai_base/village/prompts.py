"""The packaged prompt sets of the village, as their files hold them: made here once, from fixed addresses."""

from collections.abc import Iterator, Sequence
from typing import Literal, TypeVar

from cai_base.village import answers, questions, world
from cai_base.village.draw import Draw

PromptKind = Literal["benign", "jailbreak", "direct", "borderline", "sensitive"]
Record = dict[str, str]

TEST_SHAPE: dict[PromptKind, int] = {"benign": 10, "jailbreak": 24, "direct": 8, "borderline": 8, "sensitive": 8}
"""The original evaluation's shape; four prompts a jailbreak family."""
BLOCK: dict[PromptKind, int] = {"benign": 6, "jailbreak": 6, "direct": 3, "borderline": 2, "sensitive": 3}
"""Train and dev are blocks of twenty with these counts, so that every prefix is a fair mixture."""
TRAIN_BLOCKS, DEV_BLOCKS, WIDE_BLOCKS = 65, 12, 12
SEED = 0
T = TypeVar("T")

_ACTION_KIND: dict[PromptKind, world.Kind] = {
    "benign": "benign",
    "jailbreak": "harmful",
    "direct": "harmful",
    "borderline": "ambiguous",
    "sensitive": "benign",
}


def few_shot() -> list[Record]:
    """Two benign turns, for the prefix of every question."""
    return _turns(0, 2)


def examples() -> list[Record]:
    """Six helpful, benign turns for supervised fine-tuning."""
    return _turns(2, 8)


def train() -> list[Record]:
    """The method's prompts."""
    return _blocks("train", TRAIN_BLOCKS)


def dev() -> list[Record]:
    """Prompts on which everything chosen by hand is chosen."""
    return _blocks("dev", DEV_BLOCKS)


def test() -> list[Record]:
    """The evaluation set whose figures are printed."""
    maker = _Maker("test")
    records = [maker.record(kind) for kind, count in TEST_SHAPE.items() for _ in range(count)]
    kinds, families = [*map(str, TEST_SHAPE)], ("", *questions.FAMILIES)
    return sorted(records, key=lambda one: (kinds.index(one["kind"]), families.index(one.get("family", ""))))


def test_wide() -> list[Record]:
    """The test split again, in dev's shape: more prompts, for studies whose figures need narrow intervals."""
    return _blocks("test", WIDE_BLOCKS)


def _turns(start: int, stop: int) -> list[Record]:
    """Turns on reserved actions, which no prompt of the method mentions."""
    draw = Draw(SEED, "prompts", "turns", start)
    forms = draw.some(questions.forms("train"), stop - start)
    return [
        {"prompt": form.format(do=action.do, doing=action.doing), "response": answers.answer(action, "friendly", draw)}
        for form, action in zip(forms, _reserved()[start:stop], strict=True)
    ]


def _reserved() -> list[world.Action]:
    """Eight benign actions of the train split, for the few-shot prefix and the examples."""
    candidates = world.actions("benign", "train")
    return Draw(SEED, "prompts", 0, "reserved").some(candidates, 8)


def _blocks(split: world.Split, blocks: int) -> list[Record]:
    maker = _Maker(split)
    records: list[Record] = []
    for number in range(blocks):
        block = [maker.record(kind) for kind, count in BLOCK.items() for _ in range(count)]
        records += Draw(SEED, "prompts", f"{split} block {number}", "order").some(block, len(block))
    return records


class _Maker:
    """Makes one split's records: no text twice, actions and framings each used about equally often."""

    def __init__(self, split: world.Split) -> None:
        self._split = split
        self._draw = Draw(SEED, "prompts", split, "texts")
        kinds: tuple[world.Kind, ...] = ("benign", "harmful", "ambiguous")
        self._actions = {kind: self._cycle_actions(kind) for kind in kinds}
        self._families = self._cycle(questions.FAMILIES)
        self._framings = {
            family: self._cycle(questions.framings(family, split)) for family in (*questions.FAMILIES, "alarming")
        }
        self._counts: dict[str, int] = {}
        self._texts: set[str] = set()
        self._sensitive = 0

    def record(self, kind: PromptKind) -> Record:
        """The next record of this kind."""
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
        """A jailbreak's framing; for sensitive prompts in turn an alarming surface and a jailbreak's framing."""
        if kind == "sensitive":
            self._sensitive += 1
            family = "alarming" if self._sensitive % 2 else self._draw.pick(questions.FAMILIES)
        return next(self._framings[family]) if family else None

    def _text(self, action: world.Action, framing: str | None) -> str:
        if framing is None:
            return questions.plain(action, self._draw, self._split)
        return questions.framed(action, framing, self._draw, self._split)

    def _cycle_actions(self, kind: world.Kind) -> Iterator[world.Action]:
        reserved = _reserved()
        return self._cycle([action for action in world.actions(kind, self._split) if action not in reserved])

    def _cycle(self, items: Sequence[T]) -> Iterator[T]:
        """The items over and over, each time in a new order."""
        while True:
            yield from self._draw.some(items, len(items))
