"""Every kind of judge, defined once: its name, where it runs, and how it grades."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic_core import CoreSchema, core_schema

from cai_base.settings.engines import ENGINES, LOCAL, TINKER, EngineKind
from cai_base.settings.values import is_endpoint
from cai_base.text import either


@dataclass(frozen=True, slots=True)
class JudgeKind:
    """A kind of judge.

    Attributes:
        about: its description in `--help`.
        takes: the name after the colon: MODEL, or PATH for a local folder; empty if there is no name.
        runs: where its model runs: at a URL, in a separate process, or in an engine, by its name in `ENGINES`; None
            for a judge that is not a model.
        grades: how it grades: by rubrics, in a guard's own format, from the embedded world's facts, by phrases in the
            text, or not at all.
    """

    about: str
    takes: Literal["MODEL", "PATH", ""]
    runs: str | None
    grades: Literal["rubrics", "guard", "facts", "phrases", "nothing"]

    @property
    def at_url(self) -> bool:
        """Whether its model is behind a URL."""
        return self.runs == "url"

    @property
    def rubrics(self) -> bool:
        """Whether it is a language model that answers rubrics."""
        return self.grades == "rubrics"

    @property
    def compares(self) -> bool:
        """Whether it can say which of two responses helps more."""
        return self.grades in ("rubrics", "facts")

    @property
    def reads_language(self) -> bool:
        """Whether it can say that an answer is gibberish."""
        return self.grades != "phrases"

    @property
    def engine(self) -> EngineKind | None:
        """The engine that its model runs in; None if it runs elsewhere, or is not a model."""
        return ENGINES.get(self.runs or "")

    @property
    def served(self) -> bool:
        """Whether its model is in an engine on a service, which charges for tokens."""
        return self.engine is not None and self.engine.served

    @property
    def on_this_machine(self) -> bool:
        """Whether its model is a folder or file of this machine."""
        return self.runs == "process" or (self.engine is not None and not self.engine.served)


JUDGE_KINDS: Mapping[str, JudgeKind] = {
    "openai": JudgeKind("any OpenAI-compatible endpoint", "MODEL", "url", "rubrics"),
    "tinker": JudgeKind("on a Tinker service", "MODEL", TINKER, "rubrics"),
    "hf": JudgeKind("a chat model", "PATH", LOCAL, "rubrics"),
    "gguf": JudgeKind("a chat model in llama.cpp's server on this machine", "PATH", "process", "rubrics"),
    "hf-guard": JudgeKind("Llama Guard, Qwen3Guard-Gen", "PATH", LOCAL, "guard"),
    "ground-truth": JudgeKind("the embedded model only", "", None, "facts"),
    "refusal-phrases": JudgeKind("string matching, no model", "", None, "phrases"),
    "none": JudgeKind("", "", None, "nothing"),
}
"""Every kind of judge by its name."""

_ROWS = list(JUDGE_KINDS.items())
_FORMS = {name: f"{name}:{one.takes}" if one.takes else name for name, one in _ROWS}


def kind_that(grades: str) -> str:
    """The name of the kind of judge that grades in this way, for example by `facts`."""
    (name,) = (name for name, kind in JUDGE_KINDS.items() if kind.grades == grades)
    return name


GROUND_TRUTH = kind_that("facts")
NO_JUDGE = kind_that("nothing")


_MODELS = [f"{_FORMS[name]} with --judge-url" if one.at_url else _FORMS[name] for name, one in _ROWS if one.takes]

RUBRIC_JUDGES = either([name for name, one in _ROWS if one.rubrics])
"""The kinds that use rubrics, for messages."""

MODEL_JUDGES = f"--judge {either(_MODELS)}"
"""The judges that are models, for messages."""

JUDGE_CHOICES = f"{MODEL_JUDGES}, {either([name for name, one in _ROWS if not one.takes])}"
"""Every judge, for messages."""

JUDGE_HELP = either([f"{_FORMS[name]} ({one.about})" if one.about else _FORMS[name] for name, one in _ROWS])
"""The values of `--judge`, for `--help`."""


class JudgeName(str):
    """A judge in the form `kind:name` or `kind`."""

    __slots__ = ()

    @property
    def kind_name(self) -> str:
        """`openai` of `openai:some-model`."""
        return self.partition(":")[0]

    @property
    def kind(self) -> JudgeKind:
        """The judge's kind."""
        return JUDGE_KINDS[self.kind_name]

    @property
    def name(self) -> str:
        """`some-model` of `openai:some-model`; empty if there is none."""
        return self.partition(":")[2]

    @classmethod
    def __get_pydantic_core_schema__(cls, _: object, __: object) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls._checked, core_schema.str_schema())

    @classmethod
    def _checked(cls, text: str) -> "JudgeName":
        judge = cls(text)
        known = JUDGE_KINDS.get(judge.kind_name)
        named = known is not None and bool(known.takes)
        if known is None or bool(judge.name) != named or (":" in text) != named:
            raise ValueError(f"is not a judge; use {JUDGE_CHOICES}")
        return judge


def check_url(flag: str, judge: JudgeName | None, url: str | None) -> None:
    """Raises ValueError if a judge's URL is missing, not needed, or not an endpoint."""
    takes_url = judge is not None and judge.kind.at_url
    if judge is not None and takes_url and url is None:
        raise ValueError(
            f"{flag}-url: say where {judge.name} is served, such as --{flag}-url http://localhost:8000/v1 or "
            "https://api.openai.com/v1; or give --judge none (answers are stored, unscored)"
        )
    if not takes_url and url is not None:
        raise ValueError(f"{flag}-url: only a judge openai:MODEL has a URL, not {judge}")
    if url is not None and not is_endpoint(url):
        # The value is not repeated, because it may contain a key.
        raise ValueError(
            f"{flag}-url: must be the base URL of an endpoint, such as http://localhost:8000/v1, without user, key, "
            "query or space; put the key into OPENAI_API_KEY or .env"
        )
