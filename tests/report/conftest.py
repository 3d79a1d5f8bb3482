"""Small synthetic runs, stored the way a real run is stored and summed up by the same `collect`."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cai_base import paths
from cai_base.inputs import Inputs, gather
from cai_base.inputs.kinds import ANSWER_FILES, PROMPT_KINDS
from cai_base.inputs.prompts import Prompt
from cai_base.records import SuiteResults
from cai_base.run.results import run as results
from cai_base.settings.command_line import load_settings
from cai_base.settings.schema import RunSettings
from cai_base.store import JsonObject, Run, to_json, to_lines

HOSTILE = (
    '<script>alert("owned")</script> </blockquote> ```\n# Not a heading\n| a | b | ![x](http://evil.example/x.png)'
)

MakeRun = Callable[..., Path]


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    return partial(_make, tmp_path_factory)


@pytest.fixture(scope="session")
def run(make_run: MakeRun) -> Path:
    """Two seeds with verdicts."""
    return make_run(seeds=2)


def results_of_a_suite(of_run: dict[str, Any]) -> dict[str, Any]:
    """A suite's results with the run's figures of SFT."""
    asked = {"prompts": 24, "asked": 24, "attacks": 24, "apart": 0, "safe": 0, "left_out": {}}
    shared = {
        field: value for field, value in of_run.items() if field in SuiteResults.model_fields or field == "schema"
    }
    return shared | {
        "suite": {"name": "mine", "files": ["mine.jsonl"], "sha256": "0"} | asked,
        "of": "run",
        "base": None,
        "layouts": {"sft": "few-shot dialogue"},
        "arms": {"sft": of_run["arms"]["sft"]},
        "comparisons": {},
        "failures": [],
    }


def _make(
    folder: pytest.TempPathFactory,
    *,
    seeds: int = 2,
    start_seed: int = 0,
    arms: str = "sft,cai",
    judged: bool = True,
    protocol: str = "heldout",
    lost: Mapping[int, str] | None = None,
    warnings: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
    helpful: bool = False,
    broken: str | None = None,
    constitution: Path | None = None,
    unseen: int = 0,
) -> Path:
    """A run of which the seeds in `lost` failed in DPO, for the reasons given.

    Full CAI refuses most prompts, the harmless ones too unless `helpful`; the language of the arm `broken` is.
    """
    lost = lost or {}
    flags = ["--seeds", str(seeds), "--arms", arms, "--judge", "ground-truth" if judged else "none"]
    flags += ["--data", "english", "--evaluate-every", "10", "--sft.steps", "20", "--dpo.steps", "20"]
    flags += ["--revision.rounds", "2", "--sl-cai.steps", "20"]
    flags += ["--evaluation.unseen-families", str(unseen)]
    flags += ["--start-seed", str(start_seed)]
    flags += [] if constitution is None else ["--constitution", str(constitution)]
    settings = load_settings(flags).settings
    settings = settings.model_copy(update={"protocol": protocol})
    inputs = gather(settings.model_copy(update={"protocol": "heldout"}))
    run = Run.create(
        folder.mktemp("made") / "run",
        settings.model_dump(mode="json", by_alias=True),
        {"inputs.json": inputs.to_bytes(), "warnings.json": to_json(list(warnings))},
    )
    run.record_on_commit("engine", lambda: {"model": "0" * 64, "notes": list(notes)})
    for seed in settings.seed_numbers:
        run.commit(write=_seed(seed, settings, inputs, judged, seed in lost, helpful, broken))
    failed = {"dpo": lost} if lost else {}
    run.commit("results", 1, write={"results.json": to_json(results.collect(run, settings, inputs, failed).dump())})
    return run.directory


def _seed(
    seed: int, settings: RunSettings, inputs: Inputs, judged: bool, lost: bool, helpful: bool, broken: str | None
) -> dict[str, bytes]:
    chains = _chains(seed, inputs, judged)
    files = {
        f"seed-{seed}/revision.jsonl": to_lines(chains),
        f"seed-{seed}/pairs.jsonl": to_lines(
            {
                "prompt": chain["prompt"],
                "chosen": chain["rounds"][-1]["revision"],
                "rejected": chain["original"],
                "id": chain["id"],
                "kind": chain["kind"],
                "principles": [one["principle"] for one in chain["rounds"]],
                "chosen_tokens": 12,
                "rejected_tokens": 20,
                "held_out": False,
            }
            for chain in chains
            if chain["outcome"] == "pair"
        ),
        f"seed-{seed}/sft/metrics.jsonl": to_lines(_sft_steps(seed)),
        f"seed-{seed}/dpo/metrics.jsonl": to_lines(_dpo_steps(seed)[: 5 if lost else None]),
    }
    for arm in settings.evaluated_arms:
        for step in (None, 10):
            if (lost and arm == "cai" and step is None) or (arm in ("base", "instruct") and step):
                continue
            for task in ANSWER_FILES:
                asked = [p for p in inputs.evaluation_prompts if p.kind and PROMPT_KINDS[p.kind].file == task]
                records = [
                    _answer(arm, seed, number, prompt, judged, helpful) | _fluency(number, arm == broken)
                    for number, prompt in enumerate(asked)
                ]
                files[paths.answers(seed, arm, task, step)] = to_lines(records)
    return files


def _chains(seed: int, inputs: Inputs, judged: bool) -> list[JsonObject]:
    outcomes = ("pair", "pair", "pair", "identical", "pair", "truncated", "pair", "off the rails", "pair", "empty")
    principles = inputs.constitution.principles
    return [
        {
            "id": prompt.id,
            "kind": prompt.kind,
            "family": prompt.family,
            "prompt": prompt.text,
            "refusal_opener": "I would rather not" if number % 7 == 3 else None,
            "original": HOSTILE if number % 5 == 0 else f"original {number} of seed {seed}",
            "rounds": [
                {
                    "principle": principles[(number + n) % len(principles)].name,
                    "critique": f"critique {n}: {HOSTILE}" if number % 4 == 0 else f"critique {n}",
                    "revision": f"revision {n} of {number}, seed {seed}",
                }
                for n in (1, 2)
            ],
            "truncated": int(outcomes[number % 10] == "truncated"),
            "sampled_tokens": 90,
            "outcome": outcomes[number % 10],
            "unscored": [None if judged else "no judge"] * 3,
            "verdicts": [
                _verdict((number + seed + n) % 3 != 0 if n < 2 else number % 4 == 0, judged) for n in range(3)
            ],
        }
        for number, prompt in enumerate(inputs.prompts[:60])
    ]


def _fluency(number: int, broken: bool) -> JsonObject:
    """Every fifth opening of a broken arm is."""
    opening = -9.0 if broken and number % 5 == 0 else -0.6 - 0.01 * number
    return {"logprob": -0.3 - 0.01 * number, "opening_logprob": opening}


def _answer(arm: str, seed: int, number: int, prompt: Prompt, judged: bool, helpful: bool) -> JsonObject:
    complies = (number * 7 + seed) % 10 < {"base": 9, "sft": 8, "cai": 3, "sl-cai": 5, "instruct": 2}[arm]
    complies = complies or (helpful and prompt.kind in ("benign", "sensitive"))
    return {
        "id": prompt.id,
        "kind": prompt.kind,
        "family": prompt.family,
        "prompt": prompt.text,
        "response": HOSTILE if number == 1 else f"{arm} answers {prompt.id} for seed {seed}",
        "tokens": 10 + number,
        "truncated": number == 2,
        "verdict": _verdict(complies, judged),
        "unscored": None if judged else "no judge",
    }


def _verdict(complied: bool, judged: bool) -> JsonObject | None:
    result = {
        "complied": complied,
        "refused": not complied,
        "helpfulness": 4.5 if complied else 1.5,
        "gibberish": False,
    }
    return result if judged else None


def _sft_steps(seed: int) -> list[JsonObject]:
    return [
        {"step": n, "loss": 3 * math.exp(-n / 8) + 0.1 * seed, "learning_rate": 1e-4, "tokens": 9} for n in range(20)
    ]


def _dpo_steps(seed: int) -> list[JsonObject]:
    return [
        {
            "step": n,
            "loss": math.log(2) * math.exp(-n / 9),
            "margin": 0.3 * n + 0.1 * seed,
            "accuracy": min(1.0, 0.5 + n / 20),
            "chosen_reward": 0.1 * n,
            "rejected_reward": -0.2 * n,
            "learning_rate": 1e-4,
            "tokens": 80,
            **({"held_out_accuracy": 0.5 + n / 50} if n % 10 == 9 else {}),
        }
        for n in range(20)
    ]
