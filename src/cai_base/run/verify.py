"""Checks a finished run without a model: hashes, then every figure from the stored answers.

Each check names the first thing that differs. What needs a model or a judge is listed as not checked.
"""

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from cai_base import paths
from cai_base.arms import ARMS, BASE, FULL, SFT
from cai_base.engines import Tokenizer
from cai_base.errors import UserError
from cai_base.evaluation.judges import Response
from cai_base.evaluation.judges.load import load_judges
from cai_base.evaluation.judges.replies import check_replies
from cai_base.evaluation.tasks.pairwise import PairwiseTask
from cai_base.inputs import Inputs
from cai_base.inputs.prompts import Prompt
from cai_base.method.pairs import NO_PAIRS, Pairs, rule
from cai_base.method.phase import adapter_seed
from cai_base.progress import Progress
from cai_base.reading import parse_json, quote, read_text, shortened
from cai_base.records import Answer, Chain, Failure, Pair, PairwiseVerdict, Stored, TwoResponses
from cai_base.run.evaluation.again import style_again, suite_again
from cai_base.run.identity import UNBOUND, check_suite, suites_of
from cai_base.run.results import run as results
from cai_base.run.session_facts import commit, last_session, versions
from cai_base.run.stored import answer_faults, answers_of, check_finished, each_record, records_of, suite_folders
from cai_base.settings.choices import JudgeChoice, Scope
from cai_base.settings.judges import NO_JUDGE
from cai_base.settings.validation import stored_settings
from cai_base.store import MANIFEST, TRACKERS, JsonObject, Run, to_json

ROUNDING = 1e-9
"""Relative difference up to which two figures count as equal: another machine or library may round differently."""
CHANGED = "the folder was changed after the run, or this version of cai-base computes it differently"

NOT_CHECKED = (
    "whether answers, chains and adapters come from the named base model: that needs the model (cai-base run --from "
    "RUN)",
    "log-probabilities of answers and pairs, lengths in tokens, comparisons under the constitution, and the metrics of "
    "training steps: they need the model too",
    "the verdicts on pairs of answers: their figures are computed from them as stored",
    "files without a hash: the page and its figures, logs for Inspect, README.md, usage.json and trackers/; cai-base "
    "report RUN writes the page again",
    "whether lines are missing in the replies of a judge that is a model (judge.jsonl, second-judge.jsonl): they have "
    "no hash, but a check in each line",
)
"""What cannot be checked with only the run's folder."""
WITHOUT_HASH = (
    *(MANIFEST, paths.README, paths.USAGE, paths.SPENDING, paths.LIVE, paths.REPORT_HTML, paths.REPORT_MARKDOWN),
    *(paths.replies(judge) for judge in ("judge", "second-judge")),
)
"""The files of a run that are in no manifest."""
FOLDERS_WITHOUT = (paths.FIGURES, paths.INSPECT, TRACKERS, paths.SUITES)
"""The folders whose files are not in the run's manifest."""
NAMED = 5
"""The most files that a sentence names."""


@dataclass(slots=True)
class Verification:
    """What was checked.

    Attributes:
        directory: of the run.
        files: files whose hash is right, those of suites too.
        figures: recomputed numbers of `results.json`, also of suites, and of `style.json`.
        rounded: those of them that differ only by rounding.
        verdicts: recomputed verdicts of a judge that needs no model.
        absent: the figures that this version computes and `results.json` lacks, by their dotted names.
        not_checked: a sentence for each thing that was not checked.
        versions: the library versions and the commit that differ from the run's, each with the run's and today's.
    """

    directory: Path
    files: int = 0
    figures: int = 0
    rounded: int = 0
    verdicts: int = 0
    absent: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)
    versions: dict[str, tuple[str, str]] = field(default_factory=dict)

    def dump(self) -> JsonObject:
        """The content for `--json`."""
        return {
            "verified": not self.absent,
            "files": self.files,
            "figures": self.figures,
            "rounded": self.rounded,
            "verdicts": self.verdicts,
            "absent": self.absent,
            "not_checked": self.not_checked,
            "other_versions": {name: {"run": run, "here": here} for name, (run, here) in self.versions.items()},
        }


def verify(directory: Path) -> Verification:
    """Check a finished run.

    Raises:
        UserError: the first file, answer, verdict or figure that differs, or the run is not finished.
    """
    run = Run.open(directory)  # compares every hash
    if "suite" in run.config:
        raise UserError(f"{directory}: is an evaluation and not a run; give the run's folder")
    settings = stored_settings(run)
    check_finished(run)
    inputs = Inputs.read(directory / paths.INPUTS)
    check_replies(directory)
    done = Verification(directory, files=len(run.files) + _check_suites(directory), not_checked=list(NOT_CHECKED))
    done.versions = _other_versions(run)
    scope = settings.scope
    _check_ends(run)
    _check_answers(run, scope, inputs)
    _check_prompts(run, scope, inputs)
    _check_pairs(run, scope, settings.dpo.held_out)
    done.verdicts = _check_verdicts(run, scope, settings.models.judges["judge"], inputs, done.not_checked)
    computed = results.collect(run, settings, inputs, failures(run, scope, settings.dpo.pairs))
    _check_figures(directory / paths.RESULTS, computed, done)
    for suite in suites_of(directory):
        name = f"{paths.SUITES}/{suite.directory.name}"
        if not check_suite(run, suite):
            done.not_checked.append(f"whose answers {name} has, and its figures, only the hashes: {UNBOUND}")
        elif suite.progress("results"):
            _check_figures(suite.directory / paths.RESULTS, suite_again(run, suite), done)
        else:
            done.not_checked.append(f"the figures of {name}: this evaluation is not finished")
    if run.progress("style"):
        _check_figures(directory / paths.STYLE, style_again(run), done)
    foreign = _not_stored(run)
    if foreign:
        more = f", and {len(foreign) - NAMED} more" if len(foreign) > NAMED else ""
        named = ", ".join(map(quote, foreign[:NAMED]))
        done.not_checked.append(f"files that this run did not store, which no figure rests on: {named}{more}")
    return done


def _check_suites(directory: Path) -> int:
    """Compare every file of the suites with the manifests there. Returns their number."""
    suites = {*suite_folders(directory), *(file.parent for file in directory.glob(f"{paths.SUITES}/*/{MANIFEST}"))}
    count = 0
    for folder in sorted(suites):
        suite = Run.open(folder)
        check_replies(folder)
        suite.vouched(paths.RESULTS)
        count += len(suite.files)
    return count


def _not_stored(run: Run) -> list[str]:
    """The files of a run's folder that it did not store, apart from those that have no hash and from suites."""
    run.vouched(paths.RESULTS)
    run.vouched(paths.STYLE)
    known = {*run.files, *WITHOUT_HASH}
    files = [path.relative_to(run.directory) for path in sorted(run.directory.rglob("*")) if path.is_file()]
    return [file.as_posix() for file in files if file.as_posix() not in known and file.parts[0] not in FOLDERS_WITHOUT]


def failures(run: Run, scope: Scope, most_pairs: int) -> dict[str, dict[int, str]]:
    """By phase, the seeds that failed in it, from the stored files, each with the reason.

    Args:
        most_pairs: of a seed that DPO trains on; 0 for all.
    """
    failed: dict[str, dict[int, str]] = {}
    for arm in (ARMS[name] for name in scope.arms):
        if arm.folder is None:
            continue
        file = paths.failures(arm.folder)
        of_phase = {adapter_seed(failure.adapter): failure.reason for failure in records_of(run, file, Failure)}
        if arm.starts_from != BASE:
            before = ARMS[arm.starts_from].folder or SFT
            for seed in scope.seeds:
                lost = seed in {**failed.get(SFT, {}), **failed.get(before, {})}
                if not lost and not _training_pairs(run, seed, arm.owner, most_pairs):
                    of_phase[seed] = NO_PAIRS
        if of_phase:
            failed[arm.folder] = of_phase
    return failed


def _training_pairs(run: Run, seed: int, owner: str | None, limit: int) -> list[Pair]:
    file = paths.pairs(seed, owner)
    pairs = records_of(run, file, Pair)
    return [pair for pair in pairs if not pair.held_out][: limit or None]


def _other_versions(run: Run) -> dict[str, tuple[str, str]]:
    session = last_session(run)
    there, here = dict(session.versions), versions()
    then, now = session.commit, commit()
    if then and now:
        there["commit"], here["commit"] = then, now
    return {name: (there[name], here[name]) for name in here if name in there and there[name] != here[name]}


def _check_ends(run: Run) -> None:
    """Check that no file has more than the run stored: `Run.open` ignores what an interrupted unit may have left."""
    for name in run.files:
        path, size = run.directory / name, run.vouched(name)
        if path.stat().st_size > size:
            with path.open("rb") as file:
                line = file.read(size).count(b"\n") + 1
            raise UserError(f"{path}:{line}: was added after what this run stored; {CHANGED}")


def _check_answers(run: Run, scope: Scope, inputs: Inputs) -> None:
    """Check that every stored answer belongs to the evaluation prompt that it names, and that none is missing."""
    for name, of_seed in _answers(run, scope):
        faults = answer_faults(of_seed, inputs.evaluation_prompts) if of_seed else ""
        if faults:
            raise UserError(
                f"{run.directory / name}: must have one answer to each prompt of {paths.INPUTS}, and has {faults}; "
                f"{CHANGED}"
            )


def _answers(run: Run, scope: Scope) -> Iterator[tuple[str, list[Answer]]]:
    """The answers of every arm and seed during training and at the end, with the folder of each."""
    for arm in (ARMS[name] for name in scope.arms):
        steps = range(scope.every, scope.steps.get(arm.name, 0), scope.every) if arm.curve else ()
        for seed in scope.seeds:
            for step in (*steps, None):
                yield paths.evaluation(seed, arm.name, step), answers_of(run, seed, arm.name, step)


def _chains(run: Run, scope: Scope) -> Iterator[tuple[str, int, str | None, list[Chain]]]:
    """The chains of every seed and owner."""
    owners = [ARMS[name].owner for name in scope.arms if ARMS[name].constitution]
    for owner in dict.fromkeys([None, *owners]):
        for seed in scope.seeds:
            file = paths.chains(seed, owner)
            yield file, seed, owner, records_of(run, file, Chain)


def _check_prompts(run: Run, scope: Scope, inputs: Inputs) -> None:
    """Check that every chain, and every pair of answers, has the text of the prompt of the method that it names."""
    texts = {prompt.id: prompt.text for prompt in inputs.prompts}
    arms = [ARMS[name] for name in scope.arms if ARMS[name].source in ("responses", "comparisons")]
    answers = [paths.responses(seed, arm.owner) for arm in arms for seed in scope.seeds]
    by_file: Iterator[tuple[str, Iterable[Chain | TwoResponses]]] = itertools.chain(
        ((file, chains) for file, _, _, chains in _chains(run, scope)),
        ((file, each_record(run, file, TwoResponses)) for file in answers),
    )
    for file, records in by_file:
        for number, one in enumerate(records, start=1):
            if texts.get(one.id) != one.prompt:
                raise UserError(
                    f"{run.directory / file}:{number}: its prompt is not that of {one.id!r} in {paths.INPUTS}; "
                    f"{CHANGED}"
                )


class _Uncounted:
    """In place of the tokenizer: without the model the lengths of responses are unknown, and not compared."""

    def encode(self, text: str) -> list[int]:
        return []


def _check_pairs(run: Run, scope: Scope, held_out: float) -> None:
    """Check every preference pair against what it was made from: its chain, its two answers, or the run's own pair."""
    own = [ARMS[name] for name in scope.arms if ARMS[name].owner is not None]
    tokenizer = cast(Tokenizer, _Uncounted())
    makers = []
    if any(ARMS[name].on_run_pairs for name in scope.arms):  # a run of an earlier version made them for no arm, too
        makers.append(Pairs(ARMS[FULL].pairs or "", None, None, held_out))
    makers += [Pairs(arm.pairs or "", arm.owner, arm.source, held_out) for arm in own]
    for maker in makers:
        for seed in scope.seeds:
            file = paths.pairs(seed, maker.owner)
            stored = records_of(run, file, Pair)
            expected = rule(maker.rule)(maker.source_of(run, tokenizer, seed))
            for number in range(max(len(stored), len(expected))):
                if [*map(_content, stored[number : number + 1])] != [*map(_content, expected[number : number + 1])]:
                    raise UserError(
                        f"{run.directory / file}:{number + 1}: is not the pair of its {_MADE_FROM[maker.source]}; "
                        f"{CHANGED}"
                    )


_MADE_FROM = {None: "revision chain", "chains": "revision chain", "responses": "answers", "comparisons": "answers"}


def _content(pair: Pair) -> JsonObject:
    """A pair without its lengths; probabilities are rounded, since another machine may round differently."""
    content = pair.model_dump(exclude={"chosen_tokens", "rejected_tokens"})
    return content | {"probability": round(pair.probability, 9)}


def _check_verdicts(run: Run, scope: Scope, choice: JudgeChoice, inputs: Inputs, not_checked: list[str]) -> int:
    """Recompute every verdict if the judge needs no model. Returns the number of verdicts."""
    if choice.judge == NO_JUDGE or choice.judge.kind.runs is not None:
        whose = "" if choice.judge == NO_JUDGE else f": they are those of {choice.judge}, whose replies are stored"
        not_checked.insert(0, f"the verdicts{whose}")
        return 0
    judge, count = load_judges({choice.flag: choice}, (), None, Progress.quiet())[choice.flag], 0
    # An evaluation prompt and a prompt of the method may have the same id.
    of_evaluation, of_method = _by_id(inputs.evaluation_prompts), _by_id(inputs.prompts)
    for name, answers in _answers(run, scope):
        judgements = judge.judge([Response.to(of_evaluation[one.id], one.response) for one in answers])
        for one, judgement in zip(answers, judgements, strict=True):
            if (one.verdict, one.unscored) != (judgement.verdict, judgement.unscored):
                raise UserError(f"{run.directory / name}: the verdict on {one.id!r} is not the judge's; {CHANGED}")
        count += len(answers)
    compared = records_of(run, paths.PAIRWISE, PairwiseVerdict)
    task = PairwiseTask.of(scope.arms, scope.seeds, inputs.evaluation_prompts)
    if compared and compared != task.verdicts(partial(answers_of, run), judge):
        raise UserError(f"{run.directory / paths.PAIRWISE}: a comparison is not the judge's; {CHANGED}")
    count += 2 * len(compared)
    for name, _, _, chains in _chains(run, scope):
        texts = [(chain, text) for chain in chains for text in chain.responses]
        judged = iter(judge.judge([Response.to(of_method[chain.id], text) for chain, text in texts]))
        for chain in chains:
            again = [next(judged) for _ in chain.responses]
            if [one.verdict for one in again] != list(chain.verdicts):
                raise UserError(
                    f"{run.directory / name}: the verdicts on the chain {chain.id!r} are not the judge's; {CHANGED}"
                )
        count += len(texts)
    return count


def _by_id(prompts: Iterable[Prompt]) -> dict[str, Prompt]:
    return {prompt.id: prompt for prompt in prompts}


def _check_figures(path: Path, computed: Stored, done: Verification) -> None:
    """Compare a file of figures as it was computed again with what is stored."""
    stored = parse_json(path, read_text(path, "the figures of a run"))
    again = parse_json(path, to_json(computed.dump()).decode())
    required, name = _required(stored, type(computed)), path.relative_to(done.directory).as_posix()
    own = "" if name == paths.RESULTS else f"{name}: "
    for place, was, now in _leaves(stored, again):
        number = isinstance(was, int | float) and isinstance(now, int | float) and not isinstance(was, bool)
        if was == now and type(was) is type(now):
            done.figures += number
        elif number and math.isclose(was, now, rel_tol=ROUNDING, abs_tol=ROUNDING):
            done.figures += 1
            done.rounded += 1
        elif was is ABSENT and place not in required and done.versions.keys() & {"cai-base", "commit"}:
            # An older version may not have stored it. A figure that somebody deleted looks the same.
            done.absent.append(f"{own}{place}")
            done.not_checked.append(
                f"{place}: {name} lacks it; another version made this run and may not have stored it, or it was deleted"
            )
        else:
            others = ", ".join(f"{name} {a} then, {b} here" for name, (a, b) in done.versions.items())
            raise UserError(
                f"{path}: {place} is {_short(was)}, but the stored answers give {_short(now)}; {CHANGED}"
                + (f" ({others})" if others else "")
            )


def _required(stored: Any, kind: type[Stored]) -> set[str]:
    """The dotted names of what stored results lack although the schema requires it in every version."""
    try:
        kind.model_validate(stored)
    except ValidationError as error:
        missing = [one["loc"] for one in error.errors() if one["type"] == "missing"]
        return {
            "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")
            for place in missing
        }
    return set()


ABSENT = object()


def _leaves(was: Any, now: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every leaf of two JSON values with its dotted name; `ABSENT` if one of them lacks it."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in {**was, **now}:
            yield from _leaves(was.get(key, ABSENT), now.get(key, ABSENT), f"{place}.{key}" if place else key)
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for number, (a, b) in enumerate(zip(was, now, strict=True)):
            yield from _leaves(a, b, f"{place}[{number}]")
    else:
        yield place, was, now


def _short(value: object) -> str:
    return "absent" if value is ABSENT else shortened(repr(value))
