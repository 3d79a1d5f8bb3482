"""Every setting of a run, in one pydantic model: it defines the flags, checks the TOML file, and becomes
`config.json`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_settings import CliImplicitFlag

from cai_base import arms
from cai_base.arms import Section as ArmSection
from cai_base.embedded import EMBEDDED, Data, is_embedded
from cai_base.records import ATTACK, OVER_REFUSAL
from cai_base.settings import numbers
from cai_base.settings.choices import Host, InstructChoice, InterpreterChoice, JudgeChoice, ModelChoice, Models, Scope
from cai_base.settings.engines import ENGINES, LOCAL, PAID, SERVED, TINKER, engine_prefix
from cai_base.settings.feedback import Feedback
from cai_base.settings.judges import (
    GROUND_TRUTH,
    JUDGE_HELP,
    MODEL_JUDGES,
    NO_JUDGE,
    RUBRIC_JUDGES,
    JudgeName,
    check_url,
)
from cai_base.settings.section import Section
from cai_base.settings.training import LOSSES as LOSSES
from cai_base.settings.training import Dpo as Dpo
from cai_base.settings.training import LoraSettings as LoraSettings
from cai_base.settings.training import PreferenceLoss as PreferenceLoss
from cai_base.settings.training import Sft as Sft
from cai_base.settings.training import SlCai as SlCai
from cai_base.settings.training import Training as Training
from cai_base.settings.values import FOLDER, Dtype, Names, OneOf, TokenPrices, is_endpoint

CHECKS = (
    *("judge", "second-judge", "base", "rate", "critique", "instruct", "arms"),
    *("disjoint", "power", "engine", "feedback", "disk", "cost"),
)
"""The names of preflight's checks, for `--accept`."""


PROMPT_ROOM = 512
"""The assumed largest number of tokens of a prompt with its few-shot turns."""


class Revision(Section):
    """The settings of critique and revision."""

    prompts: numbers.Prompts = Field(
        description="number of the method's prompts to use, evenly over their kinds; 0 for all"
    )
    rounds: numbers.Rounds = Field(description="rounds of critique and revision")
    temperature: numbers.Temperature = Field(description="sampling temperature")
    response_tokens: numbers.Tokens = Field(description="most tokens of an original or a revision")
    critique_tokens: numbers.Tokens = Field(description="most tokens of a critique")
    refusal_prefill: numbers.Share = Field(
        description="share of originals prefilled with a refusal opener, for any prompt"
    )
    unit: numbers.Unit = Field(description="prompts per unit: their chains are stored, or redone, together")


class Prompted(Section):
    """The constitution in the prompt, for the control `prompted`."""

    principles: numbers.Principles = Field(
        0, description="principles stated before a question, drawn for each question; 0 for all"
    )


class Evaluation(Section):
    """The settings of the evaluation of every arm."""

    temperature: numbers.Temperature = Field(description="sampling temperature")
    response_tokens: numbers.Tokens = Field(description="most tokens of an answer")
    prompts: Path | None = Field(
        None,
        description="evaluation prompts, each with its kind: CSV or JSONL; wide: the larger set of the embedded model",
    )
    helpfulness_margin: Annotated[float, Field(gt=0, lt=4)] = Field(
        0.25, description="non-inferiority margin of helpfulness, on its scale of 1 to 5"
    )
    unseen_families: numbers.Families = Field(
        0, description="number of jailbreak families to hold out: evaluated, but removed from the method's prompts"
    )
    primary: Annotated[Names, Field(min_length=1)] = Field(
        (ATTACK, OVER_REFUSAL),
        description="comma-separated primary metrics; p values are corrected over these and all comparisons; "
        f"{ATTACK},{OVER_REFUSAL} by default",
    )


class Judging(Section):
    """How a judge model is queried."""

    temperature: numbers.Temperature = Field(0.1, description="sampling temperature")
    max_tokens: numbers.Tokens = Field(1024, description="most tokens of the judge's reply, including its reasoning")
    concurrency: Annotated[int, Field(ge=1, le=256)] = Field(8, description="concurrent requests to an endpoint")
    retries: numbers.Retries = Field(6, description="retries of a request after an error, a 429 or a time-out")
    timeout: numbers.Seconds = Field(120.0, description="seconds to wait for a complete reply")


SELF, BASE = "self", arms.BASE
"""The values of `--interpreter` for the SFT adapters and for the run's base model."""
_CHOSEN, _CONTROLS = (*arms.named("trained"), *arms.named("other")), arms.named("control")
"""The values of `--arms` and of `--control`."""


class RunSettings(Section):
    """Every setting of a run, as from `default_settings`; it cannot be changed.

    `config.dpo.batch_size` is the flag `--dpo.batch-size`, and the field `batch-size` of `[dpo]` in a TOML file.
    A run stores its settings as `config.json`.

    Attributes:
        lora: LoRA rank and alpha of the adapters.
        sft: SFT on human-written answers, a `Training` with the files to train on.
        revision: critique and revision, a `Revision`.
        dpo: training on preference pairs, a `Dpo`.
        sl_cai: SFT on revisions, a `Training` for the arm `sl-cai`.
        feedback: comparison of two answers under the constitution, for arms with feedback.
        evaluation: the evaluation of every arm, an `Evaluation`.
        judging: how a judge model is queried.
    """

    model: str = Field(
        EMBEDDED,
        min_length=1,
        description="folder, GGUF file or hub id of a base model; 'organism' is the embedded one",
    )
    engine: Annotated[str, OneOf(ENGINES)] = Field(LOCAL, description="engine that trains and samples")
    tinker_url: str | None = Field(None, description="URL of your own Tinker-API server; the hosted service by default")
    tinker_timeout: numbers.Seconds = Field(
        1800.0, description="stop, resumable, after this many seconds without a response from the Tinker service"
    )
    price: TokenPrices | None = Field(
        None, description="dollars per million tokens read,sampled,trained on; by default from the packaged table"
    )
    max_cost: numbers.Dollars | None = Field(None, description="stop the run, resumable, after this many dollars")
    tokenizer: Path | None = Field(
        None,
        json_schema_extra=FOLDER,
        description=f"for {SERVED}: folder of the model's tokenizer; by default from the service",
    )
    judge: JudgeName | None = Field(None, description=f"judge of the answers: {JUDGE_HELP}")
    judge_url: str | None = Field(
        None,
        description="where openai:MODEL is served, such as http://localhost:8000/v1; key from OPENAI_API_KEY or .env",
    )
    judge_tokenizer: Path | None = Field(
        None,
        json_schema_extra=FOLDER,
        description="for a judge tinker:MODEL: folder of its tokenizer; by default from the service",
    )
    second_judge: JudgeName | None = Field(
        None, description="a second judge of the final answers; its agreement with the first is reported"
    )
    second_judge_url: str | None = Field(None, description="URL of the second judge, if it is openai:MODEL")
    second_judge_tokenizer: Path | None = Field(
        None, json_schema_extra=FOLDER, description="the same for the second judge"
    )
    judge_labels: Path | None = Field(
        None, description="answers that people labelled (XSTest's form): rates are corrected for the judge's errors"
    )
    rubric: Names = Field(
        (), description="rubrics that replace the packaged ones for their tasks: FILE or strong-reject,..."
    )
    votes: numbers.Draws = Field(1, description="votes of the judge on each answer; an odd number")
    protocol: Literal["heldout", "original"] = Field("heldout", description="original: its settings and its overlap")
    seeds: numbers.Seeds = Field(description="independent replicates")
    start_seed: numbers.SeedNumber = Field(description="number of the first seed")
    arms: Names = Field(description=f"comma-separated arms to compare: {', '.join(_CHOSEN)}")
    interpreter: str = Field(
        SELF,
        min_length=1,
        description="what critiques, revises and compares: self (each seed's SFT adapter), base (the base model), or a "
        "model: a folder, GGUF file or hub id, organism:instruct (the embedded model's sibling), tinker:MODEL",
    )
    instruct: str | None = Field(
        None,
        min_length=1,
        description="for the arm instruct: a model (folder, GGUF file or hub id) or the folder of a PEFT adapter on "
        "--model; not needed for the embedded model; on a Tinker service, a model that it serves",
    )
    instruct_tokenizer: Path | None = Field(
        None,
        json_schema_extra=FOLDER,
        description=f"for {SERVED}: folder of the instruct model's tokenizer; by default from the service",
    )
    instruct_thinking: CliImplicitFlag[bool] = Field(
        False, description="let a chat model think before it answers; by default off, if its template has a switch"
    )
    control: Names = Field(
        (),
        description=f"comma-separated controls, each a further arm: {', '.join(_CONTROLS)}; what each removes is in "
        "docs/evaluation.md",
    )
    constitution: Path | None = Field(
        None,
        description="TOML, JSON, the CAI paper's file, placebo, or no-principle; packaged by default",
    )
    principles: Names = Field(
        (), description="comma-separated principles: use only these of the constitution; not:NAME leaves one out"
    )
    prompts: Path | None = Field(None, description="the method's prompts: text, CSV or JSONL; packaged by default")
    prompts_column: str | None = Field(
        None, min_length=1, description="column of --prompts with the texts; not needed for text, prompt or messages"
    )
    critique_examples: Path | None = Field(None, description="few-shot critiques: TOML, JSON or the CAI paper's file")
    evaluate_every: numbers.Steps = Field(
        description="steps between evaluations, and between checkpoints, in SFT and in DPO"
    )
    threads: numbers.Threads = Field(description="CPU threads; 0 for one per core")
    dtype: Dtype = Field(
        "auto", description="precision of models in this process; auto: bfloat16 on a GPU, float32 on a CPU"
    )
    data: Data = Field(description="packaged prompts, examples and constitution to use")
    accept: Names = Field((), description="comma-separated checks of preflight whose failure does not stop the run")
    lora: LoraSettings
    sft: Sft
    revision: Revision
    dpo: Dpo
    sl_cai: SlCai
    feedback: Feedback = Feedback()
    prompted: Prompted = Prompted()
    evaluation: Evaluation
    judging: Judging = Judging()

    @property
    def judges(self) -> dict[str, JudgeName]:
        """Every judge, by the flag that names it."""
        by_flag = {"judge": self.judge, "second-judge": self.second_judge}
        return {flag: judge for flag, judge in by_flag.items() if judge is not None}

    @property
    def host(self) -> Host:
        """The hardware and service on which engines run."""
        return Host(self.threads, self.tinker_url, self.tinker_timeout, self.dtype)

    @property
    def base_model(self) -> ModelChoice:
        """The base model, for training; its longest sequence is a revision request with the revision."""
        longest = 2 * self.revision.response_tokens + self.revision.critique_tokens + PROMPT_ROOM
        return ModelChoice(self.model, self.engine, self.host, self.tokenizer, longest, self.lora, adapters=self.seeds)

    @property
    def sampled_model(self) -> ModelChoice:
        """The base model, only for sampling from it or from its adapters."""
        longest = self.evaluation.response_tokens + PROMPT_ROOM
        return ModelChoice(self.model, self.engine, self.host, self.tokenizer, longest, thinking=self.instruct_thinking)

    @property
    def instruct_model(self) -> InstructChoice:
        """The model of the instruct arm."""
        longest = self.evaluation.response_tokens + PROMPT_ROOM
        return InstructChoice(self.instruct, self.base_model, self.instruct_tokenizer, longest, self.instruct_thinking)

    @property
    def interpreter_model(self) -> InterpreterChoice:
        """The model that critiques, revises and compares."""
        return InterpreterChoice(self.interpreter, self.base_model, self.interpreter == SELF, self.other_interpreter)

    @property
    def answer_revision(self) -> Revision:
        """The revision settings for an arm that revises its answers: responses have the length of answers."""
        return self.revision.model_copy(update={"response_tokens": self.evaluation.response_tokens})

    @property
    def judge_choices(self) -> dict[str, JudgeChoice]:
        """Every judge's choice, by the flag that names it; `judge` is always present, possibly as `none`."""
        urls = {"judge": self.judge_url, "second-judge": self.second_judge_url}
        tokenizers = {"judge": self.judge_tokenizer, "second-judge": self.second_judge_tokenizer}
        return {
            flag: JudgeChoice(flag, judge, urls[flag], tokenizers[flag], self.votes, self.judging, self.host)
            for flag, judge in ({"judge": JudgeName(NO_JUDGE)} | self.judges).items()
        }

    @property
    def models(self) -> Models:
        """Every model that the run asks."""
        return Models(self.base_model, self.instruct_model, self.interpreter_model, self.judge_choices)

    @property
    def scope(self) -> Scope:
        """What the run compares, and how long it trains."""
        return Scope(self.evaluated_arms, self.seed_numbers, self.training_steps, self.evaluate_every)

    @property
    def asks_rubrics(self) -> bool:
        """Whether at least one judge is a language model that uses rubrics."""
        return any(judge.kind.rubrics for judge in self.judges.values())

    @property
    def other_interpreter(self) -> bool:
        """Whether the interpreter is a model other than the run's."""
        return self.interpreter not in (SELF, BASE)

    def training(self, section: ArmSection) -> Training:
        """The training settings of the arms that are trained with this section."""
        if section == "sl_cai" and self.sl_cai.as_dpo:
            of_dpo = {field: getattr(self.dpo, field) for field in Training.model_fields}
            return Training.model_validate(of_dpo, by_name=True)
        own: Training = getattr(self, section)
        return own

    @property
    def trained_arms(self) -> tuple[str, ...]:
        """The arms to train, in the order of tables."""
        return tuple(name for name in arms.named("trained") if name in self.arms)

    @property
    def controls(self) -> tuple[str, ...]:
        """The requested controls, in the order of tables."""
        return tuple(name for name in arms.named("control") if name in self.control)

    @property
    def evaluated_arms(self) -> tuple[str, ...]:
        """All arms: the base model, the trained arms, the controls, and models trained elsewhere."""
        elsewhere = (name for name in arms.named("other") if name in self.arms)
        return (*arms.named("start"), *self.trained_arms, *self.controls, *elsewhere)

    @property
    def revises(self) -> bool:
        """Whether an arm needs critique and revision."""
        return any(arms.ARMS[name].revises for name in self.evaluated_arms)

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines of its models: the base model's, and those of an interpreter and of judges on a service."""
        others = (engine_prefix(self.interpreter)[0], *(judge.kind.runs for judge in self.judges.values()))
        return (self.engine, *(name for name in others if name and name in ENGINES and ENGINES[name].served))

    @property
    def computes_here(self) -> bool:
        """Whether a model of the run is in this process: the base model, or a judge."""
        return not ENGINES[self.engine].served or any(judge.kind.runs == LOCAL for judge in self.judges.values())

    @property
    def training_steps(self) -> dict[str, int]:
        """The number of training steps of each arm, by its name."""
        trained = (arms.ARMS[name] for name in (*self.trained_arms, *self.controls))
        return {arm.name: self.training(arm.section).steps for arm in trained if arm.section is not None}

    @property
    def seed_numbers(self) -> range:
        """The seeds' numbers."""
        return range(self.start_seed, self.start_seed + self.seeds)

    @model_validator(mode="after")
    def _judge_fits(self) -> "RunSettings":
        if not is_embedded(self.model) and self.judge in (None, GROUND_TRUTH):
            raise ValueError(
                f"judge: only the embedded model has a {GROUND_TRUTH} judge; with {self.model} give {MODEL_JUDGES}; or "
                "--judge none (answers are stored, unscored)"
            )
        check_url("judge", self.judge, self.judge_url)
        if self.second_judge_url is not None and self.second_judge is None:
            raise ValueError("second-judge-url: there is no second judge; add --second-judge openai:MODEL")
        check_url("second-judge", self.second_judge, self.second_judge_url)
        if self.second_judge is not None and (self.second_judge in (NO_JUDGE, self.judge) or self.judge == NO_JUDGE):
            raise ValueError(f"second-judge: {self.second_judge!r} beside {self.judge!r} are not two different judges")
        if self.second_judge == GROUND_TRUTH and not is_embedded(self.model):
            raise ValueError(f"second-judge: only the embedded model has a {GROUND_TRUTH} judge")
        if self.judge_labels is not None and self.judge in (None, NO_JUDGE):
            raise ValueError("judge-labels: there is no judge to measure on them; add --judge")
        if not self.asks_rubrics and (self.rubric or self.votes != 1):
            flag = "rubric" if self.rubric else "votes"
            raise ValueError(f"{flag}: only a judge that uses rubrics takes it ({RUBRIC_JUDGES}), not {self.judge}")
        if self.votes % 2 == 0:
            raise ValueError(f"votes: {self.votes} votes could tie; give an odd number, such as 1 or 3")
        if self.votes > 1 and self.judging.temperature == 0:
            raise ValueError("votes: at --judging.temperature 0 all votes are the same; raise it, or use one vote")
        return self

    @model_validator(mode="after")
    def _arms_fit(self) -> "RunSettings":
        for name in self.arms:
            if name not in _CHOSEN:
                raise ValueError(f"arms: {name!r} is not an arm to choose; choose from {', '.join(_CHOSEN)}")
        for name in self.control:
            if name not in _CONTROLS:
                raise ValueError(f"control: {name!r} is not a control; choose from {', '.join(_CONTROLS)}")
        for name in self.accept:
            if name not in CHECKS:
                raise ValueError(f"accept: {name!r} is not a check of preflight; choose from {', '.join(CHECKS)}")
        for name in self.controls:
            own = arms.ARMS[name].constitution
            if own is not None and self.constitution == Path(own):
                raise ValueError(
                    f"control: {name!r} with --constitution {self.constitution} compares that constitution with "
                    "itself; leave one out"
                )
        if arms.BASELINE not in self.arms:
            raise ValueError(
                f"arms: {arms.BASELINE!r} is missing; every other arm starts from it and is compared with it"
            )
        for name in self.evaluated_arms:
            needed = arms.ARMS[name].starts_from
            if needed not in (arms.BASE, *self.arms):
                raise ValueError(f"arms: {name!r} starts from {needed!r}, which is missing; add it to --arms")
        same = [name for name in self.controls if arms.ARMS[name].chosen_only]
        if self.sl_cai.as_dpo and same:
            raise ValueError(f"sl-cai.as-dpo: makes SL-CAI the same arm as the control {same[0]!r}; leave one out")
        if arms.INSTRUCT not in self.arms and self.instruct is not None:
            names = ",".join(self.arms)
            raise ValueError(f"instruct: {self.instruct!r} is not among the arms; add it: --arms {names},instruct")
        if arms.INSTRUCT in self.arms and self.instruct is None and self.model != EMBEDDED:
            raise ValueError(
                f"arms: for 'instruct' with {self.model}, give --instruct: a folder or hub id of an instruct model, or "
                "the folder of a PEFT adapter on that base model"
            )
        return self

    @model_validator(mode="after")
    def _service_fits(self) -> "RunSettings":
        served = {flag for flag, judge in self.judges.items() if judge.kind.served}
        for flag in ("judge", "second-judge"):
            field = f"{flag.replace('-', '_')}_tokenizer"
            if flag not in served and getattr(self, field) is not None:
                raise ValueError(f"{flag}-tokenizer: applies only to a judge tinker:MODEL")
        read_by = {
            "tokenizer": (ENGINES[self.engine].served, SERVED),
            "instruct_tokenizer": (ENGINES[self.engine].served, SERVED),
            "tinker_url": (TINKER in self.engines, f"--engine {TINKER}"),
            "price": (any(ENGINES[name].paid for name in self.engines), PAID),
            "max_cost": (any(ENGINES[name].paid for name in self.engines), PAID),
        }
        if self.dtype != "auto" and not self.computes_here:
            raise ValueError("dtype: on a service the precision is the service's; leave it out")
        for field, (read, engine) in read_by.items():
            if not read and getattr(self, field) is not None:
                raise ValueError(f"{field.replace('_', '-')}: applies only to {engine}; add that, or leave it out")
        if self.tinker_url is not None and not is_endpoint(self.tinker_url):
            raise ValueError(
                "tinker-url: must be the address of a Tinker-API server, such as http://localhost:8000, without user, "
                "key, query or space; put the key into TINKER_API_KEY or .env"
            )
        if ENGINES[self.engine].served and arms.INSTRUCT in self.arms and self.instruct is None:
            raise ValueError(
                f"arms: for 'instruct' with --engine {self.engine}, give --instruct: a model on the service"
            )
        return self
