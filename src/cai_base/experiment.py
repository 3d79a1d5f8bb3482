"""The spine: phase after phase for all seeds together, each unit stored when it is done, top to bottom as in the paper.

    base model -> SFT on a few human-written answers -> critique and revision -> preference pairs -> DPO -> evaluation

A run is begun, or taken up again, in `beginning.py`. Nothing here decides how a phase works.
"""

import gc
import platform
from collections.abc import Callable, Mapping
from typing import Any

from cai_base import __version__, arms, paths, randomness
from cai_base.dialogue import Chat, Dialogue, Layout
from cai_base.engines import Adapter, Datum, Engine
from cai_base.evaluation import fluency
from cai_base.evaluation.judges import Judge
from cai_base.evaluation.judges.model_judge import ModelJudge
from cai_base.evaluation.tasks.prompts import answer, by_file, judge_again
from cai_base.inputs import Inputs
from cai_base.method import dpo, revision, sft
from cai_base.method import pairs as preferences
from cai_base.method.training import Phase, train, trained_sequence
from cai_base.models import load_instruct
from cai_base.progress import Progress
from cai_base.run import results
from cai_base.run.budget import Account
from cai_base.settings.schema import RunSettings
from cai_base.store import Record, Run, to_json, to_lines, write_atomic


class Experiment:
    """One run on its way. The methods below `finish` are its phases, in their order."""

    def __init__(
        self,
        settings: RunSettings,
        inputs: Inputs,
        engine: Engine,
        judges: Mapping[str, Judge],
        run: Run,
        progress: Progress,
    ) -> None:
        self.settings, self.inputs, self.engine, self.run, self.progress = settings, inputs, engine, run, progress
        self.dialogue = Dialogue(inputs.few_shot, inputs.critique_examples)
        self.judge: Judge = judges["judge"]
        self.second_judge: Judge | None = judges.get("second-judge")
        self.failed: dict[str, dict[int, str]] = {}
        self.pairs: preferences.Pairs = {}
        run.watch("engine", engine.findings)
        meters = {flag: judge.meter for flag, judge in judges.items() if isinstance(judge, ModelJudge)}
        self.account = Account(settings, run, {"method": engine.meter, **meters})

    def finish(self) -> None:
        """Do what is not yet done, to the end, and write the results.

        Raises:
            UserError: another process works on this run.
        """
        with self.run.locked():
            self._finish()

    def _finish(self) -> None:
        self.run.note(
            python=platform.python_version(), platform=platform.platform(), host=platform.node(), version=__version__
        )
        with self.account.phase("evaluation"):
            self._evaluate("base", None, dict.fromkeys(self.settings.seed_numbers))
        seeds = self._sft()
        if seeds:
            self._revise(seeds)
            phases = {"cai": "dpo", "sl-cai": "sl-cai"}
            self.pairs = self._prepare_pairs(
                seeds, "dpo", [phases[arm] for arm in self.settings.trained_arms if arm in phases]
            )
        if self.pairs and "cai" in self.settings.trained_arms:
            self._dpo("dpo", self.pairs)
        if self.pairs and "sl-cai" in self.settings.trained_arms:
            self._sft_on_revisions()
        for control in self.settings.controls if seeds else ():
            self._control(control, seeds)
        if "instruct" in self.settings.evaluated_arms:
            self._instruct()
        self._summarise()

    def _sft(self) -> list[int]:
        """Phase 1, and the seeds that came through it."""
        settings = self.settings.sft
        examples = [
            trained_sequence(self.engine.tokenizer, self.dialogue, e.prompt, e.response) for e in self.inputs.examples
        ]
        adapters = {f"sft/{seed}": seed for seed in self.settings.seed_numbers}
        if not self.run.progress("sft"):
            self.engine.create({a: randomness.seed(seed, "sft", "adapter") for a, seed in adapters.items()})
        self._train(
            "sft",
            adapters,
            lambda adapter, step: sft.batch(examples, adapters[adapter], "sft", step, settings.batch_size),
        )
        return [seed for seed in adapters.values() if seed not in self.failed.get("sft", {})]

    def _control(self, name: str, seeds: list[int]) -> None:
        """An arm that must show nothing of what the constitution does."""
        if name == "a-a":
            with self.account.phase("evaluation"):
                self._evaluate(name, None, {seed: f"sft/{seed}" for seed in seeds}, draw="another answer")
            return
        if name == "placebo":
            self._revise(seeds, name)
        pairs = self._prepare_pairs(seeds, name, [name])
        if pairs:
            self._dpo(name, pairs)

    def _revise(self, seeds: list[int], name: str = "dpo") -> None:
        """Phase 2: revision chains, a unit of prompts at a time, for all seeds together.

        Args:
            name: the phase whose preference pairs they become; a control's have a folder of their own.
        """
        settings, prompts = self.settings.revision, self.inputs.prompts
        constitution = self.inputs.placebo if name == "placebo" else self.inputs.constitution
        assert constitution is not None
        starts = range(0, len(prompts), settings.unit)
        work = preferences.work("revision", name)
        done = self.run.progress(work)
        adapters = {f"sft/{seed}": seed for seed in seeds}
        texts = len(seeds) * revision.generations(settings)
        with (
            self.account.phase("revision"),
            self.progress.bar(work, len(prompts) * texts, min(done * settings.unit, len(prompts)) * texts) as bar,
        ):
            for unit in range(done, len(starts)):
                self.account.afford()
                part = prompts[starts[unit] : starts[unit] + settings.unit]
                chains = revision.revise(
                    self.engine,
                    self.dialogue,
                    constitution,
                    self.inputs.refusal_openers,
                    settings,
                    adapters,
                    part,
                    bar,
                )
                records: dict[int, list[Record]] = {seed: [] for seed in seeds}
                for chain, verdicts in zip(chains, results.verdicts(chains, self.judge), strict=True):
                    records[chain.seed].append(chain.record() | verdicts)
                self.run.commit(
                    work,
                    unit + 1,
                    append={f"{preferences.folder(s, name)}/revision.jsonl": to_lines(r) for s, r in records.items()},
                )

    def _prepare_pairs(self, seeds: list[int], name: str, phases: list[str]) -> preferences.Pairs:
        """The preference pairs of every seed that has any. Another goes no further: it fails in these phases."""
        settings, work = self.settings.dpo, preferences.work("pairs", name)
        if not self.run.progress(work):
            found = {s: preferences.build(self.run, self.engine.tokenizer, s, name, settings.held_out) for s in seeds}
            self.run.commit(
                work, 1, write={f"{preferences.folder(s, name)}/pairs.jsonl": to_lines(r) for s, r in found.items()}
            )
        pairs = {}
        for seed in seeds:
            kept = preferences.trained(self.run, seed, name, settings.pairs)
            if kept:
                pairs[seed] = dpo.tokenised(self.engine.tokenizer, self.dialogue, kept)
            else:
                for phase in phases:
                    self.failed.setdefault(phase, {})[seed] = results.NO_PAIRS
        return pairs

    def _dpo(self, name: str, pairs: preferences.Pairs) -> None:
        """Phase 3: DPO from the SFT adapter, whose log-probabilities are the reference."""
        settings = self.settings.dpo
        held_out = {
            seed: dpo.tokenised(self.engine.tokenizer, self.dialogue, preferences.held_out(self.run, seed, name))
            for seed in pairs
        }
        references = self._references(name, pairs, held_out)
        adapters = {f"{name}/{seed}": seed for seed in pairs}
        self._start_from_sft(name, adapters)

        def batch(adapter: Adapter, step: int) -> Any:
            seed = adapters[adapter]
            return dpo.batch(
                pairs[seed],
                references[seed],
                seed,
                step,
                settings.batch_size,
                settings.beta,
                settings.nll_weight,
            )

        def accuracy(live: list[Adapter]) -> dict[Adapter, dict[str, float | None]]:
            asked: dict[Adapter | None, list[Datum]] = {
                a: dpo.sequences(held_out[adapters[a]]) for a in live if held_out[adapters[a]]
            }
            logprobs = self.engine.compute_logprobs(asked)
            return {
                a: {
                    "held_out_accuracy": dpo.accuracy(held_out[adapters[a]], logprobs[a], references[adapters[a]])
                    if a in asked
                    else None
                }
                for a in live
            }

        self._train(name, adapters, batch, accuracy)

    def _references(
        self, name: str, pairs: preferences.Pairs, held_out: preferences.Pairs
    ) -> dict[int, dict[str, dpo.Reference]]:
        """Every pair's reference log-probabilities, computed once."""
        size, work = self.settings.dpo.batch_size, preferences.work("reference", name)
        prints = {seed: self.engine.fingerprint(f"sft/{seed}") for seed in pairs}
        if not self.run.progress(work):
            batches = preferences.reference_batches(pairs, held_out, size)
            longest = max(len(one) for one in batches.values())
            with (
                self.account.phase("dpo"),
                self.progress.bar(preferences.work("reference log-probabilities", name), longest) as bar,
            ):
                lines = preferences.reference_records(self.engine, batches, prints, bar)
            self.run.commit(
                work, 1, write={preferences.reference_file(seed, name): to_lines(r) for seed, r in lines.items()}
            )
        return {seed: preferences.references(self.run, seed, name, prints[seed]) for seed in pairs}

    def _sft_on_revisions(self) -> None:
        """The paper's supervised stage: from the SFT adapter, the SFT loss on the final revisions."""
        settings, pairs = self.settings.sl_cai, self.pairs
        adapters = {f"sl-cai/{seed}": seed for seed in pairs}
        chosen = {seed: [pair.chosen for pair in pairs[seed]] for seed in pairs}
        self._start_from_sft("sl-cai", adapters)
        self._train(
            "sl-cai",
            adapters,
            lambda a, step: sft.batch(chosen[adapters[a]], adapters[a], "sl-cai", step, settings.batch_size),
        )

    def _train(
        self,
        name: str,
        adapters: Mapping[Adapter, int],
        batch: Callable[[Adapter, int], Any],
        held_out: Callable[[list[Adapter]], dict[Adapter, dict[str, float | None]]] | None = None,
    ) -> None:
        """Train one phase, evaluate its arm at every interval, export its adapters."""
        settings = {"sft": self.settings.sft, "sl-cai": self.settings.sl_cai}.get(name, self.settings.dpo)
        arm = "cai" if name == "dpo" else name
        folders = {adapter: f"seed-{seed}" for adapter, seed in adapters.items()}

        def evaluate(step: int, live: list[Adapter]) -> None:
            interim = None if step == settings.steps else step
            if interim is not None and name in arms.named("control"):
                return  # of a control only the end is compared
            with self.account.phase("evaluation"):
                self._evaluate(arm, interim, {adapters[adapter]: adapter for adapter in live})

        with self.account.phase(name):
            failed = train(
                self.engine,
                self.run,
                Phase(name, settings, folders, batch, held_out),
                self.settings.evaluate_every,
                evaluate,
                self.progress,
            )
        for adapter, reason in failed.items():
            self.failed.setdefault(name, {})[adapters[adapter]] = reason
            self.progress.say(f"{name}: seed {adapters[adapter]} stopped: {reason}; the other seeds go on")
        exported = f"{name} adapters"
        if not self.run.progress(exported):
            places = {a: f"{folders[a]}/{name}/adapter" for a in adapters if a not in failed}
            self.engine.export({adapter: self.run.directory / place for adapter, place in places.items()})
            self.run.commit(exported, 1, adopt=places.values())

    def _start_from_sft(self, name: str, adapters: Mapping[Adapter, int]) -> None:
        if not self.run.progress(name):
            steps = self.settings.sft.steps
            sources = {a: self.run.directory / f"seed-{s}/sft/state-{steps}" for a, s in adapters.items()}
            self.engine.load(sources, optimizer=False)

    def _evaluate(self, arm: str, step: int | None, models: Mapping[int, Adapter | None], draw: str = "answer") -> None:
        """Answers of one arm, all seeds together, stored once; `step` marks an interim evaluation."""
        work = f"evaluation of {arm}" + (f" at step {step}" if step else "")
        if self.run.progress(work) or not models:
            return
        self._answer(work, arm, step, self.engine, self.dialogue, models, base=self.engine, draw=draw)

    def _instruct(self) -> None:
        """Answers of the instruct model in its own chat layout. It is not trained here: its seeds are its draws'."""
        work = "evaluation of instruct"
        if self.run.progress(work):
            return
        self.progress.say(f"Loading {self.settings.instruct or 'the instruct sibling'}")
        found = self.engine.findings()
        self.run.watch("engine", lambda: found)
        del self.engine  # its work is done, and two models may not fit
        gc.collect()
        with self.account.phase("evaluation"):
            engine, adapter = load_instruct(self.settings, self.progress)
            self.account.follow("instruct", engine.meter)
            models = dict.fromkeys(self.settings.seed_numbers, adapter)
            # Beside another model the base is no longer there to say how likely it finds the answers.
            base = engine if adapter is not None else None
            self._answer(work, "instruct", None, engine, Chat(), models, base=base)

    def _answer(
        self,
        work: str,
        arm: str,
        step: int | None,
        engine: Engine,
        layout: Layout,
        models: Mapping[int, Adapter | None],
        *,
        base: Engine | None,
        draw: str = "answer",
    ) -> None:
        """Draw the answers of an arm, and store them with their verdicts, and their fluency under `base`, as `work`."""
        self.account.afford()
        self.progress.say(f"{work}: {len(models) * len(self.inputs.evaluation_prompts)} answers")
        prompts = self.inputs.evaluation_prompts
        answers = answer(engine, layout, self.settings.evaluation, self.judge, prompts, models, draw)
        drawn = [one for of_seed in answers.values() for one in of_seed]
        if step is None and self.second_judge is not None:
            drawn = judge_again(self.second_judge, prompts, drawn)
        if step is None and base is not None:
            likelihoods = fluency.measure(base, self.dialogue, [(one.prompt, one.response) for one in drawn])
            drawn = [
                one.model_copy(update={"logprob": likelihood.answer, "opening_logprob": likelihood.opening})
                for one, likelihood in zip(drawn, likelihoods, strict=True)
            ]
        stored = {seed: drawn[n * len(prompts) : (n + 1) * len(prompts)] for n, seed in enumerate(answers)}
        self.run.commit(
            work,
            1,
            write={
                paths.answers(seed, arm, file, step): to_lines(one.dump() for one in of_file)
                for seed, of_seed in stored.items()
                for file, of_file in by_file(of_seed).items()
            },
        )

    def _summarise(self) -> None:
        """`results.json` and `usage.json`."""
        tokens = results.tokens(self.run, self.settings)
        usage = {**self.run.usage, "tokens": tokens, "spent": self.account.record()}
        write_atomic(self.run.directory / "usage.json", to_json(usage))
        content = results.collect(self.run, self.settings, self.inputs, self.failed)
        self.run.commit("results", 1, write={paths.RESULTS: to_json(content.dump())})
        self.account.close()
