"""Rubrics: the questions to a judge about a response, and how its answers become a verdict. Each is a data file."""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from jinja2 import StrictUndefined, TemplateError, meta, nodes
from jinja2.runtime import Context
from jinja2.sandbox import SandboxedEnvironment
from pydantic import Field as Limits
from pydantic import field_validator, model_validator

from cai_base.errors import UserError
from cai_base.reading import Entry, Text, build, described, listed, parse_toml, quote, read_text, unknown
from cai_base.records import VERDICT_PARTS

Value = str | bool | float
"""A judge's answer to one field."""

TASKS = tuple(sorted({task for part in VERDICT_PARTS.values() for task in part.needed_for}))
"""The tasks of rubrics. Each has a packaged rubric of its name."""


def parts_of(task: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The parts of the verdict that a rubric for this task must give, and those that it may give."""
    return (
        tuple(name for name, part in VERDICT_PARTS.items() if task in part.needed_for),
        tuple(name for name, part in VERDICT_PARTS.items() if task in part.allowed_for),
    )


_RUBRIC_FILE = "a rubric: a .toml file with name, task, instructions, [[field]] tables and a [verdict] table"


class _Expressions(SandboxedEnvironment):
    """Expressions over the fields: arithmetic of numbers, comparisons, `and`, `or`, `not`, `if`; nothing else.

    A text times a number, or a power of whole numbers, could take all the memory or all the time that there is.
    """

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute with numbers alone, and a power as numbers of limited size."""
        if not isinstance(left, int | float) or not isinstance(right, int | float):
            raise TypeError(f"{operator} takes numbers alone")
        try:
            return super().call_binop(context, operator, float(left), float(right))
        except OverflowError:
            raise OverflowError("it is larger than any number here") from None


_EXPRESSIONS = _Expressions(undefined=StrictUndefined)
_EXPRESSIONS.globals.clear()
_FORBIDDEN = (nodes.Call, nodes.Filter, nodes.Test, nodes.Getattr, nodes.Getitem, nodes.Concat)
"""What could build a value of any size, such as a text of a billion characters."""
LONGEST_EXPRESSION = 2000
"""Characters."""


class Field(Entry):
    """One field of the judge's answer.

    Attributes:
        low, high: the least and the greatest value of a number.
        about: the description that the judge reads.
    """

    name: Annotated[str, Limits(pattern=r"^[a-z][a-z0-9_]*$")]
    type: Literal["text", "yes-no", "whole", "number"]
    about: Text
    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _numbers_have_a_range(self) -> Self:
        ends = (self.low, self.high)
        if self.type not in ("whole", "number"):
            if ends != (None, None):
                raise ValueError(f"a field of type {self.type!r} has no low and no high; leave them out")
        elif self.low is None or self.high is None or not self.low < self.high:
            raise ValueError(f"a field of type {self.type!r} needs low and high, low below high")
        return self

    @property
    def takes(self) -> str:
        """The allowed values, in words."""
        match self.type:
            case "text":
                return "text"
            case "yes-no":
                return "true or false"
            case "whole":
                return f"a whole number from {self.low:g} to {self.high:g}"
            case "number":
                return f"a number from {self.low:g} to {self.high:g}"

    @property
    def answer_schema(self) -> dict[str, Any]:
        """The field as JSON Schema."""
        kinds = {"text": "string", "yes-no": "boolean", "whole": "integer", "number": "number"}
        schema: dict[str, Any] = {"type": kinds[self.type], "description": self.about}
        if self.type == "whole" and self.low is not None and self.high is not None:
            schema["enum"] = list(range(int(self.low), int(self.high) + 1))
        elif self.type == "number":
            schema |= {"minimum": self.low, "maximum": self.high}
        return schema

    def admits(self, value: object) -> bool:
        """Whether a JSON value is a valid answer to this field, without conversion."""
        if self.type == "text":
            return isinstance(value, str)
        if self.type == "yes-no":
            return isinstance(value, bool)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        assert self.low is not None
        assert self.high is not None
        return self.low <= value <= self.high and (self.type == "number" or value == int(value))


class Rubric(Entry):
    """The instructions and fields for a judge, and the expressions that turn its answer into a verdict."""

    name: Text
    task: str
    instructions: Text
    fields: Annotated[tuple[Field, ...], Limits(min_length=1)]
    verdict: dict[str, Text]

    @field_validator("task", mode="before")
    @classmethod
    def _task_has_parts(cls, task: object) -> object:
        if task not in TASKS:
            *names, last = (repr(name) for name in TASKS)
            raise ValueError(f"the field 'task' is {described(task)}; it must be {', '.join(names)} or {last}")
        return task

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        names = [field.name for field in self.fields]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two fields are named {quote(name)}; give each field a name of its own")
        needed, allowed = parts_of(self.task)
        for part in self.verdict:
            if part not in (*needed, *allowed):
                raise ValueError(f"verdict: {unknown('part', part, (*needed, *allowed))}")
        for part in needed:
            if part not in self.verdict:
                raise ValueError(f"verdict: the part {part!r} is missing; a rubric for {self.task} must give it")
        numbers = [field.name for field in self.fields if field.type != "text"]
        for part, source in self.verdict.items():
            _refuse_other_names(part, source, numbers)
        for answer in _corners(self.fields):
            try:
                self.score(answer)
            except FormulaError as error:
                example = ", ".join(f"{name}={value}" for name, value in answer.items())
                raise ValueError(f"verdict: {error}, for example with {example}") from None
        return self

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content, which does not depend on the file's name and layout."""
        return sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()

    @cached_property
    def _formulas(self) -> dict[str, Callable[..., Any]]:
        return {p: _EXPRESSIONS.compile_expression(s, undefined_to_none=False) for p, s in self.verdict.items()}

    @property
    def answer_schema(self) -> dict[str, Any]:
        """The judge's answer as JSON Schema."""
        return {
            "type": "object",
            "properties": {field.name: field.answer_schema for field in self.fields},
            "required": [field.name for field in self.fields],
            "additionalProperties": False,
        }

    def score(self, answer: Mapping[str, Value]) -> dict[str, bool | float]:
        """The parts of the verdict, computed from an answer with every field.

        Raises:
            FormulaError: an expression fails, or its value is not allowed for its part.
        """
        return {part: _value(part, formula, answer) for part, formula in self._formulas.items()}


class FormulaError(Exception):
    """An expression of a rubric gave no valid value for its part of the verdict. The message names the part."""


def _value(part: str, formula: Callable[..., Any], answer: Mapping[str, Value]) -> bool | float:
    try:
        value = formula(**answer)
    except (TemplateError, ArithmeticError, TypeError, ValueError) as error:
        raise FormulaError(f"the expression for {part!r} fails ({error})") from error
    bounds = VERDICT_PARTS[part].bounds
    if bounds is None:
        if isinstance(value, bool):
            return value
        raise FormulaError(f"the expression for {part!r} gives {quote(value)}; it must give true or false")
    if isinstance(value, bool) or not isinstance(value, int | float) or not bounds[0] <= value <= bounds[1]:
        raise FormulaError(
            f"the expression for {part!r} gives {quote(value)}; "
            f"it must give a number from {bounds[0]:g} to {bounds[1]:g}"
        )
    return float(value)


def _refuse_other_names(part: str, source: str, known: list[str]) -> None:
    try:
        if len(source) > LONGEST_EXPRESSION:
            raise TemplateError(f"it has {len(source):,} characters, and at most {LONGEST_EXPRESSION:,} are read")
        tree = _EXPRESSIONS.parse(f"{{{{ {source} }}}}")
        used = meta.find_undeclared_variables(tree)
        _EXPRESSIONS.compile_expression(source)
    except RecursionError:
        raise ValueError(f"verdict: the expression for {part!r} is nested too deeply to be read") from None
    except (TemplateError, SyntaxError) as error:
        raise ValueError(f"verdict: the expression for {part!r} cannot be read: {error}") from None
    for name in sorted(used - set(known)):
        raise ValueError(f"verdict: in the expression for {part!r}, {unknown('field', name, known)}")
    if next(tree.find_all(_FORBIDDEN), None) is not None:
        raise ValueError(
            f"verdict: the expression for {part!r} may use the fields, numbers, + - * / // % **, comparisons, and, or, "
            "not, and if; no calls, filters, tests or parts of values"
        )


def _corners(fields: tuple[Field, ...]) -> list[dict[str, Value]]:
    """Answers with every field at an end of its range, in all combinations of the first ten fields."""
    ends: list[tuple[Value, ...]] = []
    for number, field in enumerate(field for field in fields if field.type != "text"):
        both = (False, True) if field.low is None or field.high is None else (field.low, field.high)
        ends.append(both if number < 10 else both[:1])
    names = [field.name for field in fields if field.type != "text"]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*ends)]


def packaged() -> dict[str, Path]:
    """The packaged rubrics' files by name."""
    folder = resources.files("cai_base") / "data" / "rubrics"
    assert isinstance(folder, Path)
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_rubric(source: str | Path) -> Rubric:
    """A packaged rubric by its name, or the rubric in a TOML file.

    Raises:
        UserError: there is no such rubric, or it has a fault; the message names the file and the field.
    """
    known = packaged()
    path = known.get(str(source), Path(source))
    if not path.exists() and path.suffix != ".toml":
        raise UserError(
            f"{path}: there is neither such a file nor a packaged rubric of that name ({listed(list(known))})"
        )
    data = dict(parse_toml(path, read_text(path, _RUBRIC_FILE)))
    tables = data.pop("field", None)
    if not isinstance(tables, list) or not tables:
        problem = "there is none" if tables is None else f"'field' is {described(tables)}"
        raise UserError(f"{path}: a rubric needs [[field]] tables, one for each field of the judge's answer; {problem}")
    if "fields" in data:
        raise UserError(f"{path}: unknown field 'fields'; write one [[field]] table for each")
    fields = tuple(build(Field, one, f"{path}: field {number}") for number, one in enumerate(tables, start=1))
    return build(Rubric, data | {"fields": fields}, str(path))


def rubrics_for(chosen: Sequence[str]) -> dict[str, Rubric]:
    """The rubric of every task: one of the chosen (a file or a packaged name) if it is for this task, else the
    packaged.

    Raises:
        UserError: a rubric has a fault, or two are for the same task.
    """
    by_task: dict[str, Rubric] = {}
    for source in chosen:
        rubric = load_rubric(source)
        if rubric.task in by_task:
            raise UserError(
                f"--rubric {source}: {by_task[rubric.task].name!r} is for the task {rubric.task} already; give one for "
                "each task"
            )
        by_task[rubric.task] = rubric
    return {task: by_task.get(task) or load_rubric(task) for task in TASKS}
