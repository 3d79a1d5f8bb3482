"""Style flexibility of a finished run's arms: asked in thirteen styles, measured, stored as `style.json`.

The answers lie in `style/<arm>/seed-N.jsonl`. An arm that has them all is not asked again, and figures come from what
is stored, so that nothing depends on where an evaluation was stopped.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cai_base.arms import ARMS
from cai_base.embedded import EMBEDDED
from cai_base.errors import Stopped, UserError
from cai_base.evaluation.judges.load import judge_name, load_judges
from cai_base.evaluation.statistics import Bounds, mean, paired, summary
from cai_base.evaluation.statistics.crossed import Array
from cai_base.evaluation.tasks import style_measures
from cai_base.evaluation.tasks.style_answers import answer, key, keys, mark_in_english, mark_in_world
from cai_base.evaluation.tasks.styles import KINDS, English, StyledPrompt, World, style_set, styled_prompts
from cai_base.inputs import Inputs
from cai_base.inputs.prompts import overlap
from cai_base.progress import Progress
from cai_base.run.finished_run import of_run
from cai_base.settings.schema import RunSettings
from cai_base.store import Record, Run, to_json, to_lines

FILE = "style.json"
QUESTIONS: Mapping[str, int] = {"world": 6, "english": 3}
"""Questions in each style, by the run's data, where no other number is asked for."""
LEAST_QUESTIONS = 3
"""With fewer a style could hardly be told from what is asked."""
SAMPLES = 2
MOST_THREADS = 1024

SHARE: Bounds = (0.0, 1.0)
MEASURES = ("adherence", "markers", "distinctiveness", "diversity", "gibberish")
IN_WORLD = (*MEASURES, "helped")
"""In the village it is also known whether an answer in a style still helps."""
ASKED = "Does base-derived CAI keep more style than the instruct model?"
OVER = (
    "over seeds and styled prompts (a question in a style), as crossed factors; over prompts alone with one seed, and "
    "of the base model and the instruct model, which are one set of weights each"
)


def evaluate(
    directory: Path,
    progress: Progress,
    *,
    arms: Collection[str] | None = None,
    questions: int | None = None,
    samples: int = SAMPLES,
    threads: int | None = None,
) -> Record:
    """Ask the arms of a finished run in every style, and write `style.json`; its content.

    Args:
        arms: names of arms; all that the run has, by default. `instruct` may be added to a run on the embedded model.
        questions: how many are asked in every style; `QUESTIONS` by default.
        samples: answers to each, two at least.
        threads: CPU threads; the run's by default.

    Raises:
        UserError: it is no finished run, has no such arm, or there are not so many questions.
        Stopped: the judge cannot be asked any more; what it said is kept.
    """
    if threads is not None and not 0 <= threads <= MOST_THREADS:
        raise UserError(f"--threads {threads}: must be from 0, one for each core, to {MOST_THREADS}")
    run = Run.open(directory)
    if not run.progress("results"):
        raise UserError(f"{directory}: is not finished; finish it first: cai-base resume {directory}")
    settings = RunSettings.model_validate(run.config)
    inputs = Inputs.model_validate_json((directory / "inputs.json").read_bytes())
    plan = _plan(settings, inputs, questions, samples)
    wanted = list(arms if arms is not None else settings.evaluated_arms)
    if arms is None and "a-a" in wanted:
        wanted.remove("a-a")  # the SFT adapters again
    with run.locked():
        missing = [arm for arm in wanted if not plan.answered(run, settings, arm)]
        if missing:
            try:
                _ask(run, settings, inputs, plan, missing, threads, progress)
            except Stopped as error:
                raise Stopped(f"{error}; continue with: cai-base style {directory}") from error
        content = _collect(run, settings, plan)
        run.commit("style", 1, write={FILE: to_json(content)})
    return content


@dataclass(frozen=True, slots=True)
class _Plan:
    """What every model is asked."""

    styles: World | English
    questions: Mapping[str, str]
    prompts: list[StyledPrompt]
    samples: int

    @property
    def measures(self) -> tuple[str, ...]:
        """What is measured."""
        return IN_WORLD if isinstance(self.styles, World) else MEASURES

    def stored(self, run: Run, settings: RunSettings, arm: str) -> dict[int, list[Record]]:
        """An arm's stored answers by seed, where they answer this plan."""
        asked = keys(self.prompts, self.samples)
        found = {seed: run.lines(_file(arm, seed)) for seed in settings.seed_numbers}
        return {seed: records for seed, records in found.items() if [key(record) for record in records] == asked}

    def answered(self, run: Run, settings: RunSettings, arm: str) -> bool:
        """Whether every model of an arm has answered: all its seeds' answers are stored together."""
        return bool(run.progress(_work(arm)) and self.stored(run, settings, arm))


def _file(arm: str, seed: int) -> str:
    return f"style/{arm}/seed-{seed}.jsonl"


def _work(arm: str) -> str:
    return f"style of {arm}"


def _plan(settings: RunSettings, inputs: Inputs, questions: int | None, samples: int) -> _Plan:
    """Raises UserError if there are not so many questions that the run was not trained on."""
    count = QUESTIONS[settings.data] if questions is None else questions
    if count < LEAST_QUESTIONS:
        raise UserError(f"--questions {count}: must be at least {LEAST_QUESTIONS}")
    if samples < 2:
        raise UserError(f"--samples {samples}: must be at least 2, or diversity between samples means nothing")
    styles = style_set(settings.data)
    shown = [one.text for one in inputs.prompts]
    shown += [one.prompt for one in (*inputs.examples, *inputs.few_shot)]
    shown += [one.prompt for one in inputs.critique_examples]
    trained = {name for name, _ in overlap(styles.questions, dict(enumerate(shown)))}
    free = {name: text for name, text in styles.questions.items() if name not in trained}
    if count > len(free):
        why = f" that the run was not trained on, of {len(styles.questions)}" if trained else ""
        raise UserError(f"--questions {count}: there are {len(free)} neutral questions{why}; ask for at most so many")
    chosen = dict(list(free.items())[:count])
    return _Plan(styles, chosen, styled_prompts(styles, chosen), samples)


def _ask(
    run: Run,
    settings: RunSettings,
    inputs: Inputs,
    plan: _Plan,
    arms: Collection[str],
    threads: int | None,
    progress: Progress,
) -> None:
    """Store the answers of these arms, each arm when all its models have answered."""
    styles = plan.styles
    mark: Callable[[Sequence[Record]], None]
    if isinstance(styles, World):
        mark = partial(mark_in_world, styles)
    else:
        mark = partial(mark_in_english, styles, load_judges(settings, inputs, run.directory, progress)["judge"])
    for arm in of_run(run.directory, progress, arms, threads):
        progress.say(f"{_work(arm.name)}: {len(arm.models) * len(plan.prompts) * plan.samples} answers")
        records = answer(arm.engine, arm.layout, settings.evaluation, plan.prompts, plan.samples, arm.models)
        mark([record for answers in records.values() for record in answers])
        files = {_file(arm.name, seed): to_lines(answers) for seed, answers in records.items()}
        run.commit(_work(arm.name), 1, write=files)


def _collect(run: Run, settings: RunSettings, plan: _Plan) -> Record:
    """The content of `style.json`, from the stored answers of every arm that has answered this plan."""
    seeds = list(settings.seed_numbers)
    names = list(dict.fromkeys([*settings.evaluated_arms, "instruct"]))
    stored = {arm: plan.stored(run, settings, arm) for arm in names}
    stored = {arm: answers for arm, answers in stored.items() if answers}
    tables = {arm: _tables([answers.get(seed) for seed in seeds], plan) for arm, answers in stored.items()}
    world = isinstance(plan.styles, World)
    bounds = dict.fromkeys(plan.measures, SHARE) | ({} if world else {"adherence": (1.0, 5.0)})
    comparisons = {
        f"{a} - {b}": {name: paired(tables[a][name], tables[b][name], bounds[name]).dump() for name in plan.measures}
        for a, b in _compared(list(stored))
    }
    return {
        "schema": 1,
        "model": settings.model if settings.model == EMBEDDED else Path(settings.model).name,
        "model_organism": settings.model == EMBEDDED,
        "data": settings.data,
        "judge": "ground-truth" if world else judge_name(settings.judge),
        "styles": dict(KINDS),
        "questions": dict(plan.questions),
        "samples": plan.samples,
        "seeds": seeds,
        "adherence_range": list(bounds["adherence"]),
        "chance": 1 / len(KINDS),
        "intervals": f"95 % intervals {OVER}",
        "arms": {
            arm: _arm(tables[arm], bounds, plan, [r for rs in answers.values() for r in rs], ARMS[arm].one_model)
            for arm, answers in stored.items()
        },
        "comparisons": comparisons,
        "keeps_more_style": _answer(comparisons.get("cai - instruct")),
    }


def _compared(arms: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs of arms whose difference is taken: what training changed, and each arm beside the instruct model."""
    pairs = [(arm, "sft") for arm in arms if arm not in ("base", "sft", "instruct")]
    pairs += [("sft", "base"), ("cai", "base"), *((arm, "instruct") for arm in ("cai", "sl-cai", "sft", "base"))]
    return [(a, b) for a, b in pairs if a in arms and b in arms]


def _answer(compared: Mapping[str, Any] | None) -> Record | None:
    """Whether full CAI keeps more style than the instruct model, by the interval of the difference in adherence."""
    if compared is None:
        return None
    found = compared["adherence"]
    interval = found["ci95"]
    if interval is None:
        said = "unscored" if found["difference"] is None else "no interval"
    else:
        said = "yes" if interval[0] > 0 else "no, less" if interval[1] < 0 else "cannot be told"
    kept = {name: found[name] for name in ("difference", "ci95", "ci95_over", "p_value", "seeds")}
    return {"question": ASKED, "answer": said, "comparison": "cai - instruct", "measure": "adherence", **kept}


def _arm(
    tables: Mapping[str, Array], bounds: Mapping[str, Bounds], plan: _Plan, records: Sequence[Record], one_model: bool
) -> Record:
    places = {style: [n for n, prompt in enumerate(plan.prompts) if prompt.style == style] for style in KINDS}
    return {
        **{name: summary(table, bounds[name], one_model=one_model).dump() for name, table in tables.items()},
        "by_style": {
            style: {name: _mean(table[:, columns]) for name, table in tables.items()}
            for style, columns in places.items()
        },
        "answers": len(records),
        "scored": sum(record["adherence"] is not None for record in records),
        "truncated": sum(record["truncated"] for record in records),
        "unscored": dict(sorted(Counter(r["unscored"] for r in records if r["unscored"]).items())),
    }


def _mean(cells: Array) -> float | None:
    return mean(cells[~np.isnan(cells)].tolist())


def _tables(per_seed: Sequence[Sequence[Record] | None], plan: _Plan) -> dict[str, Array]:
    """Every measure's values [seeds, styled prompts], NaN where there is none."""
    empty = np.full(len(plan.prompts), np.nan)
    rows = [None if records is None else _rows(records, plan.styles, plan.samples) for records in per_seed]
    return {
        name: np.stack([empty if row is None else np.array(row[name], dtype=float) for row in rows])
        for name in plan.measures
    }


def _rows(records: Sequence[Record], styles: World | English, samples: int) -> dict[str, list[float | None]]:
    """One model's values of every measure for every styled prompt, each the mean over its samples."""
    texts, usable = [r["response"] for r in records], [bool(r["response"]) and not r["gibberish"] for r in records]
    known = style_measures.recognised(texts, [r["style"] for r in records], [r["question"] for r in records], usable)
    found: dict[str, list[float | None]] = {name: [] for name in IN_WORLD}
    for start in range(0, len(records), samples):
        part = range(start, start + samples)
        adherence = [records[n]["adherence"] for n in part if records[n]["adherence"] is not None]
        marks = [style_measures.share(styles.marks(texts[n], records[n]["style"])) if usable[n] else 0.0 for n in part]
        found["adherence"].append(mean(adherence))
        found["markers"].append(mean(marks))
        found["distinctiveness"].append(mean([float(known[n]) for n in part]))
        found["diversity"].append(style_measures.diversity([texts[n] for n in part if usable[n]]))
        found["gibberish"].append(mean([float(records[n]["gibberish"]) for n in part]))
        if isinstance(styles, World):
            found["helped"].append(mean([float(styles.helped(records[n]["prompt"], texts[n])) for n in part]))
    return found
