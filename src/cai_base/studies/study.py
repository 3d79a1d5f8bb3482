"""A study from its file to `study.json`: its cost, the differences it can detect, its runs, its results."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cai_base.embedded import is_embedded
from cai_base.engines import Usage
from cai_base.errors import Stopped, UserError
from cai_base.evaluation import metrics
from cai_base.evaluation.statistics import families, power
from cai_base.evaluation.statistics.crossed import Components
from cai_base.inputs import gather
from cai_base.inputs.kinds import JAILBREAK
from cai_base.models import load_engine, load_tokenizer
from cai_base.progress import Progress, in_minutes
from cai_base.run.preflight.design import SEED_ODDS, SEED_ODDS_EMBEDDED
from cai_base.run.spending import cost, forecast
from cai_base.run.spending.prices import Prices
from cai_base.settings.engines import engine_kind
from cai_base.settings.presets import Table
from cai_base.store import to_json, write_atomic
from cai_base.studies import analysis, folder
from cai_base.studies.conduct import Work, conduct
from cai_base.studies.design import Design
from cai_base.studies.plan import PlannedRun, plan
from cai_base.studies.shared_stages import Stages, sharing, stages
from cai_base.text import counted


@dataclass(frozen=True, slots=True)
class Study:
    """A study with its inputs read and checked.

    Attributes:
        stages: the stages of every run.
        shared: for every run, the stages that an earlier run makes, each with the index of that run.
        usages: for every run, an upper bound on the tokens of the stages that it makes itself.
        phases: of those, for every run, the tokens by phase without preflight and judges.
        families: of each jailbreak prompt.
    """

    design: Design
    runs: tuple[PlannedRun, ...]
    stages: tuple[Stages, ...]
    shared: tuple[dict[str, int], ...]
    usages: tuple[Usage, ...]
    phases: tuple[dict[str, Usage], ...]
    families: tuple[str, ...]

    @property
    def shared_with(self) -> dict[str, dict[str, str]]:
        """`shared`, with names of runs instead of indices."""
        return {
            run.name: {stage: self.runs[donor].name for stage, donor in of_run.items()}
            for run, of_run in zip(self.runs, self.shared, strict=True)
        }


def prepare(design: Design, flags: Table) -> Study:
    """Read and check all inputs of the runs. Loads only the tokenizer of each model.

    Raises:
        UserError: an input or a setting is wrong.
    """
    runs = plan(design, flags)
    metrics.check_primary(runs[0].settings.evaluation.primary)
    inputs = [gather(run.settings) for run in runs]
    for run, of_run in zip(runs, inputs, strict=True):
        fact = analysis.unpaired((run.settings, of_run), (runs[0].settings, inputs[0]))
        if fact:
            raise UserError(f"{design.file}: {run.name} has {fact} than {runs[0].name}; {analysis.NOT_VARIED}")
    of_runs = [stages(run.settings, of_run) for run, of_run in zip(runs, inputs, strict=True)]
    shared = sharing(of_runs)
    tokenizers = {run.settings.model: load_tokenizer(run.settings.base_model) for run in _one_by_model(runs)}
    usages, phases = [], []
    for run, of_run, mine, copied in zip(runs, inputs, of_runs, shared, strict=True):
        usage = cost.estimate(run.settings, of_run, tokenizers[run.settings.model], tuple(mine.phases.values()))
        own = {work: tokens for work, tokens in usage.items() if work not in copied}
        usages.append(sum(own.values(), Usage()))
        phases.append(forecast.of_phases(own, run.settings))
    jailbreaks = [prompt for prompt in inputs[0].evaluation_prompts if prompt.kind == JAILBREAK]
    of_each = tuple(prompt.family or prompt.id for prompt in jailbreaks)
    return Study(design, runs, tuple(of_runs), tuple(shared), tuple(usages), tuple(phases), of_each)


def _one_by_model(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    return list({run.settings.model: run for run in runs}.values())


def outlook(study: Study) -> str:
    """The plan, an upper bound on the cost, and the detectable difference, as lines of text."""
    settings = study.runs[0].settings
    cells, runs = len(study.design.cells), len(study.runs)
    copied = sum(len(of_run) for of_run in study.shared)
    total = sum(len(mine.phases) for mine in study.stages)
    usage = sum(study.usages, Usage())
    lines = [
        study.design.question,
        f"{counted(cells, 'cell')} in {counted(runs, 'run')} of {counted(settings.seeds, 'seed')}; shared and made "
        f"once: {copied} of {total} stages.",
        f"At most {usage.trained:,} tokens trained on, {usage.prefilled:,} read, {usage.sampled:,} sampled"
        f"{_dollars(study)}.",
        _detectable(study),
        f"{counted(len(study.design.comparisons), 'comparison')} x "
        f"{counted(len(settings.evaluation.primary), 'primary metric')} ({', '.join(settings.evaluation.primary)}); "
        "Holm's correction is over all of them.",
    ]
    return "\n".join(lines) + "\n"


def time_needed(study: Study, processes: int, progress: Progress) -> str:
    """The expected time of a study whose models run in this process, from a few timed steps, as a line of text."""
    by_model: dict[str, forecast.Speed] = {}
    for run in _one_by_model(study.runs):
        if engine_kind(run.settings.engine).served:
            return "No estimate of its time: steps on a service cost money.\n"
        progress.say(f"Timing a few steps of {run.settings.model}")
        engine = load_engine(run.settings.base_model, progress)
        by_model[run.settings.model] = forecast.measured_speed(run.settings, gather(run.settings), engine)
    seconds = sum(
        sum(forecast.expected_seconds(usages, by_model[run.settings.model]).values())
        for run, usages in zip(study.runs, study.phases, strict=True)
    )
    at_once = min(processes, len(study.runs))
    return (
        f"Estimate from a few timed steps: about {in_minutes(seconds / at_once)} with "
        f"{counted(at_once, 'process', 'processes')}, "
        "if each has a core of its own and every answer has the most tokens that it may have.\n"
    )


def _dollars(study: Study) -> str:
    settings = study.runs[0].settings
    prices = Prices.of_models(settings.models, settings.price)
    if not prices.models:
        return "; no paid service"
    price = prices.of_model(prices.base)
    if price is None:
        return f"; no price is known for {prices.base}: give --price"
    return f"; {sum(price.of(usage) for usage in study.usages):,.2f} dollars at the base model's price"


def _detectable(study: Study) -> str:
    """The smallest detectable difference between two cells, with the variance components that preflight assumes."""
    settings, prompts = study.runs[0].settings, len(study.families)
    if settings.seeds < 2 or prompts < 2:
        return (
            f"With {counted(settings.seeds, 'seed')} and {counted(prompts, 'jailbreak prompt')} no difference in "
            "attack success can be distinguished from chance over seeds and prompts."
        )
    expected = power.assumed_components(0.5, SEED_ODDS_EMBEDDED if is_embedded(settings.model) else SEED_ODDS)
    least = power.expected(expected, settings.seeds, prompts)
    start = f"{settings.seeds} seeds x {prompts} jailbreak prompts: a comparison of two cells detects a difference in "
    start += "attack success "
    if least >= 1:
        return f"{start}with less power than 0.8, however large it is."
    size = f"of about {100 * least:.0f} points with power 0.8, before correction"
    return f"{start}{size}{_detectable_over_families(study, expected)}."


def _detectable_over_families(study: Study, expected: Components) -> str:
    """The same with families as a sample."""
    least = families.expected_detectable(expected, study.runs[0].settings.seeds, study.families)
    if least is None:
        return ""
    size = f"one of about {100 * least:.0f} points" if least < 1 else "none, however large it is"
    return f", for these {len(set(study.families))} families; with families as a sample {size}"


def do(study: Study, out: Path, progress: Progress, *, processes: int, most: int | None) -> None:
    """Execute the unfinished runs of a study, and write `study.json`.

    Args:
        out: a new folder, or the folder of the same study, to continue it.
        processes: the number of concurrent runs.
        most: finish at most this many runs; None for all.

    Raises:
        UserError: `out` has other files, or a run raised it.
        Stopped: a run stopped, or `most` leaves unfinished runs.
    """
    folder.open_folder(out, folder.plan_record(study.design, study.runs))
    works = [
        Work(run.name, mine, max(1, usage.trained * 3 + usage.prefilled + usage.sampled))
        for run, mine, usage in zip(study.runs, study.stages, study.usages, strict=True)
    ]
    left = conduct(out, works, progress, processes=processes, most=most)
    if left:
        raise Stopped(f"left to do: {left} of {counted(len(works), 'run')}")
    progress.say("Computing study.json")
    results = analysis.collect(out, study.shared_with)
    write_atomic(out / folder.RESULTS, to_json(results.dump()))
