"""Wrong flags and configuration files: exit code 2, and one message that says where and what would be right."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest
from refusals import refused

from cai_base import machine
from cai_base.cli import main
from cai_base.errors import UserError
from cai_base.settings.command_line import load_settings
from cai_base.settings.schema import RunSettings
from cai_base.settings.validation import leaves

ENDPOINT = ["--judge", "openai:x", "--judge-url", "http://localhost/v1"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--sft.steps", "0"], "--sft.steps '0': must be at least 1"),
        (["--sft.steps", "-5"], "--sft.steps '-5'"),
        (["--sft.steps", "1.5"], "--sft.steps '1.5': must be a whole number"),
        (["--seeds", "ten"], "--seeds 'ten': must be a whole number"),
        (["--seeds", "0"], "--seeds '0'"),
        (["--start-seed", "-1"], "--start-seed '-1'"),
        (["--dpo.beta", "0"], "--dpo.beta '0': must be greater than 0"),
        (["--dpo.learning-rate", "nan"], "--dpo.learning-rate 'nan'"),
        (["--dpo.learning-rate", "inf"], "--dpo.learning-rate 'inf'"),
        (["--dpo.held-out", "1"], "--dpo.held-out '1': must be less than 1"),
        (["--revision.refusal-prefill", "1.5"], "--revision.refusal-prefill '1.5': must be at most 1"),
        (["--revision.rounds", "0"], "--revision.rounds '0'"),
        (["--evaluation.temperature", "-1"], "--evaluation.temperature '-1'"),
        (["--protocol", "mine"], "--protocol 'mine': must be 'heldout' or 'original'"),
        (["--engine", "cloud"], "--engine 'cloud': must be 'local' or 'tinker'"),
        (["--sft.schedule", "step"], "--sft.schedule 'step': must be 'constant', 'linear' or 'cosine'"),
        (["--arms", "cai"], "'sft' is missing"),
        (["--model", "./no-such"], "--model ./no-such: there is no such folder"),
        (
            ["--arms", "sft,kto"],
            "'kto' is not an arm to choose; choose from sft, cai, sl-cai, feedback, sl-cai+feedback",
        ),
        (
            ["--control", "random"],
            "--control: 'random' is not a control; choose from shuffled, unrevised, nll-only, placebo,",
        ),
        (["--control", "placebo", "--constitution", "placebo"], "compares that constitution with itself"),
        (["--control", "examples-only", "--constitution", "no-principle"], "compares that constitution with itself"),
        (
            ["--accept", "rates"],
            "--accept: 'rates' is not a check of preflight; choose from judge, second-judge, base, rate",
        ),
        (["--instruct", "x"], "--instruct: 'x' is not among the arms; add it: --arms sft,cai,instruct"),
        (["--model", "x", "--judge", "none", "--arms", "sft,instruct"], "for 'instruct' with x, give --instruct"),
        (["--judge", "gpt"], "'gpt' is not a judge; use --judge openai:MODEL"),
        (["--judge", "openai:"], "'openai:' is not a judge"),
        (["--judge", "none:x"], "'none:x' is not a judge"),
        (["--judge", "openai:x"], "--judge-url: say where x is served"),
        (["--model", "somewhere"], "say where meta-llama/Llama-3.3-70B-Instruct is served"),
        (["--model", "somewhere"], "or give --judge none"),
        (["--judge-url", "http://localhost/v1"], "only a judge openai:MODEL has a URL, not ground-truth"),
        *(
            (["--judge", "openai:x", "--judge-url", url], "--judge-url: must be the base URL of an endpoint")
            for url in (
                "localhost:8000",
                "http://localhost:99999/v1",
                "http://localhost:0/v1",
                "http://localhost:port/v1",
                "http://local host/v1",
                "http://localhost/v 1",
                "http://localhost/v1\t",
                "http://localhost/v1\0",
                "http://[::1/v1",
                "http://a..b/v1",
                "http:///v1",
            )
        ),
        (
            ["--engine", "tinker", "--model", "x", "--judge", "none", "--tinker-url", "http://localhost:99999"],
            "--tinker-url: must be the address of a Tinker-API server",
        ),
        *(
            (
                ["--engine", "tinker", "--model", "x", "--judge", "none", f"--price={price}"],
                f"--price '{price}': give dollars per million tokens read, sampled and trained on, such as 0.13,0.40,0",
            )
            for price in ("1,nan,1", "1,2", "1,2,3,4", "a,b,c", "-1,1,1", "inf,1,1")
        ),
        (["--arms", "[sft"], "--arms: "),
        (["--arms", "sft,sft"], "--arms 'sft,sft' has 'sft' twice; give it once"),
        (["--control", ","], "--control ',' has an empty name; give names with one comma between them"),
        (["--track", "trackio,trackio"], "--track 'trackio,trackio' has 'trackio' twice; give it once"),
        (["--sft.steps.x", "1"], "unknown arguments: --sft.steps.x 1; did you mean --sft.steps?"),
        (
            ["--rubric", "strong-reject"],
            "--rubric: only a judge that uses rubrics takes it (openai, tinker, hf or gguf), not",
        ),
        (["--votes", "3"], "--votes: only a judge that uses rubrics takes it (openai, tinker, hf or gguf), not"),
        (
            ["--judge", "hf-guard:x/y", "--votes", "3"],
            "--votes: only a judge that uses rubrics takes it (openai, tinker, hf or gguf)",
        ),
        (["--judge", "hf:"], "'hf:' is not a judge"),
        (["--judge", "hf:nowhere"], "--judge nowhere: there is no such folder, and a hub id has the form owner/name"),
        (["--second-judge", "gpt"], "--second-judge 'gpt' is not a judge"),
        (["--second-judge", "openai:x"], "--second-judge-url: say where x is served"),
        (["--second-judge", "ground-truth"], "'ground-truth' beside 'ground-truth' are not two different judges"),
        (["--second-judge-url", "http://localhost/v1"], "--second-judge-url: there is no second judge"),
        (
            ["--model", "x", *ENDPOINT, "--second-judge", "ground-truth"],
            "--second-judge: only the embedded model has a ground-truth judge",
        ),
        ([*ENDPOINT, "--votes", "2"], "--votes: 2 votes could tie; give an odd number"),
        ([*ENDPOINT, "--votes", "3", "--judging.temperature", "0"], "all votes are the same"),
        ([*ENDPOINT, "--rubric", "no-such"], "neither such a file nor a packaged rubric"),
        ([*ENDPOINT, "--judging.concurrency", "0"], "--judging.concurrency '0'"),
        (["--model", "somewhere", "--judge", "ground-truth"], "only the embedded model has a ground-truth judge"),
        (["--sft.stepz", "5"], "unknown arguments: --sft.stepz"),
        (["--sft.stepz", "5"], "did you mean --sft.steps?"),
        (["--nope"], "unknown arguments: --nope; `cai-base run --help` lists every flag"),
        (["--out", ""], "--out '': is empty; give the run's directory, which must not exist, or leave --out out"),
        (
            ["--config="],
            "--config '': is empty; give the path of a TOML file of settings, or the config.json of a",
        ),
        (["--from", ""], "--from '': is empty; give the directory of a run, or leave --from out"),
        (["--model", ""], "--model '': is empty; give a folder in Hugging Face layout, a GGUF file or a hub id"),
        (["--lora.rank"], "--lora.rank: needs a value"),
        (["stray"], "unknown arguments: stray"),
        (["--model", ""], "--model ''"),
        (["--model", "9" * 300], "is too long for a path or a hub id; give a shorter one"),
        (["--arms", "z" * 3000], f"{'z' * 49}' is not an arm to choose; choose from sft, cai"),
        (["--model", "a/" * 3000], "is too long for a path or a hub id; give a shorter one"),
        (["--dpo.learning-rate", "1e6"], "--dpo.learning-rate '1e6': must be at most 1"),
        (["--threads", "99999999999999999999"], "--threads"),
        (["--dtype", "float16"], "--dtype 'float16': must be 'auto', 'float32' or 'bfloat16'"),
        (
            ["--engine", "tinker", "--model", "x", "--judge", "none", "--dtype", "bfloat16"],
            "--dtype: on a service the precision is the service's; leave it out",
        ),
        *(
            ([f"--{flag}", value], f"--{flag} '{value}': must be at most {limit}: ")
            for flag, value, limit in (
                ("seeds", "1001", "1,000"),
                ("start-seed", "2147483648", "2,147,483,647"),
                ("lora.alpha", "1e308", "1,000,000"),
                ("sft.steps", "9" * 20, "1,000,000"),
                ("sft.refusals", "7", "6"),
                ("dpo.batch-size", "9" * 20, "4,096"),
                ("dpo.beta", "1e9", "10,000"),
                ("dpo.pairs", "9" * 20, "1,000,000,000"),
                ("sl-cai.clip-norm", "1e30", "1,000,000,000"),
                ("revision.prompts", "9" * 20, "10,000,000"),
                ("revision.rounds", "9" * 20, "1,000"),
                ("revision.temperature", "1e30", "100"),
                ("revision.critique-tokens", "9" * 20, "16,777,216"),
                ("evaluation.response-tokens", "9" * 20, "16,777,216"),
                ("evaluate-every", "9" * 20, "1,000,000"),
                ("feedback.principles", "9" * 20, "1,000"),
                ("prompted.principles", "1001", "1,000"),
                ("judging.retries", "9" * 20, "1,000"),
                ("judging.timeout", "1e30", "604,800"),
                ("votes", "9" * 15, "1,000"),
            )
        ),
        (
            ["--lora.rank", "1000000"],
            "--lora.rank '1000000': must be at most 65,536: no layer of a model is wider",
        ),
        (
            ["--lora.rank", "193"],
            "--lora.rank 193: the largest rank for organism is 192, since model.layers.0.",
        ),
        (["--config", ""], "give the path of"),
        (["--out", "x" * 300], "cannot be created"),
    ],
)
def test_a_wrong_flag(capsys: pytest.CaptureFixture[str], flags: list[str], says: str) -> None:
    assert says in refused(capsys, "run", *flags)


def numbers() -> list[str]:
    return [name for name, field in leaves(RunSettings) if {int, float} & {field.annotation, *kinds(field.annotation)}]


def kinds(annotation: Any) -> list[Any]:
    return [get_args(one)[0] if get_origin(one) is Annotated else one for one in get_args(annotation)]


def test_every_setting_that_is_a_number_has_an_upper_bound() -> None:
    assert {"seeds", "sft.steps", "max-cost", "lora.alpha", "threads"} < set(numbers())
    for name in numbers():
        with pytest.raises(UserError, match=f"--{name} '9+': must be "):
            load_settings([f"--{name}", "9" * 30])


def test_adapters_that_exceed_the_memory_are_refused_before_a_model_is_loaded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "memory", lambda: 1 << 30)
    said = refused(capsys, "run", "--lora.rank", "192", "--seeds", "100")
    # 5 layers of 4 matrices of 192 x 192 and 3 of 192 x 512, rank 192, 16 bytes a weight
    weights = 5 * 192 * (4 * (192 + 192) + 3 * (192 + 512))
    assert f"--seeds 100 with --lora.rank 192: 100 adapters of {weights:,} weights take at least" in said
    assert f"({(1 << 30) // (16 * weights)} at most)" in said


def test_a_run_is_refused_for_its_numbers_before_torch_is_imported(tmp_path: Path) -> None:
    program = (
        "import sys; from cai_base.cli import main; code = main(sys.argv[1:]); print(code, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", program, "run", "--lora.rank", "200", "--out", str(tmp_path / "run")]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout == "2 False\n"
    assert "the largest rank for organism is 192" in ended.stderr


@pytest.mark.parametrize("place", ["http://me:{}@localhost/v1", "http://localhost/v1?key={}", "{}"])
@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_a_key_in_a_url_is_refused_and_not_repeated(
    capsys: pytest.CaptureFixture[str], place: str, debug: list[str]
) -> None:
    url = place.format("sk-secret-key-1234567890")
    assert main(["run", "--judge", "openai:x", "--judge-url", url, *debug]) == 2
    said = capsys.readouterr().err
    assert "--judge-url: must be the base URL of an endpoint" in said
    assert "secret" not in said


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("seeds = ", "c.toml:1: not valid TOML"),
        ("[sft]\nsteps = 0\n", "c.toml: sft.steps 0: must be at least 1"),
        ("[sft]\nstepz = 3\n", "c.toml: sft.stepz: no such setting; did you mean sft.steps?"),
        ("[revison]\nrounds = 3\n", "c.toml: revison: no such setting; did you mean revision?"),
        ("qqqq = 3\n", "c.toml: qqqq: no such setting; `cai-base run --help` lists them"),
        ("sft = 3\n", "c.toml: sft 3: is a group of settings; write [sft], and under it steps = ..."),
        ("[[sft]]\nsteps = 3\n", "c.toml: sft [{'steps': 3}]: is a group of settings"),
        ("[sft] = 3\n", "c.toml:1: not valid TOML"),
        ("sft.steps.x = 1\n", "c.toml: sft.steps: is one setting, not a group; give it a value"),
        ("[seeds]\nx = 1\n", "c.toml: seeds: is one setting, not a group; give it a value"),
        (
            '"sft.steps" = 4\n',
            "c.toml: sft.steps: the name is in quotes; write sft.steps without them, or steps under",
        ),
        ('out = "runs/x"\n', "c.toml: out: is a flag, not a setting; give --out on the command line"),
        ("json = true\n", "c.toml: json: is a flag, not a setting"),
        ('config = "d.toml"\n', "c.toml: config: is a flag, not a setting"),
        ("evaluate_every = 3\n", "c.toml: evaluate_every: no such setting; did you mean evaluate-every?"),
        ("seeds = 3.0\n", "c.toml: seeds 3.0: has a decimal point; write a whole number"),
        ('seeds = "3"\n', "c.toml: seeds '3': is text; write the number without quotes"),
        ("[sft]\nlearning-rate = '0.1'\n", "c.toml: sft.learning-rate '0.1': is text; write the number"),
        ("seeds = true\n", "c.toml: seeds true: cannot be true or false"),
        ('model = "./no-such"\n', "c.toml: model ./no-such: there is no such folder"),
        ('arms = "cai"\n', "c.toml: arms: 'sft' is missing"),
        ("votes = 2\n", "c.toml: votes: "),
        (f"seeds = '{'x' * 5000}'\n", "c.toml: seeds 'xxx"),
        ("seeds = 'x'\n", "c.toml: seeds 'x': must be a whole number"),
        ("", "the file is empty"),
    ],
)
def test_a_wrong_configuration_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, says: str
) -> None:
    file = tmp_path / "c.toml"
    file.write_text(content)
    assert says in refused(capsys, "run", "--config", str(file))


def test_a_wrong_value_in_a_file_is_named_even_if_a_flag_has_the_same_section(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "c.toml"
    file.write_text("sft = 3\n")
    assert "c.toml: sft 3: is a group" in refused(capsys, "run", "--config", str(file), "--sft.steps", "4")
    file.write_text("[sft]\nsteps = 0\n")
    assert "--sft.steps '-1': " in refused(capsys, "run", "--config", str(file), "--sft.steps", "-1")


def test_every_wrong_name_in_a_file_has_a_line_in_the_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "c.toml"
    file.write_text("sft = 3\nstepz = 3\n[dpo]\nbetta = 1\n")
    assert refused(capsys, "run", "--config", str(file)).count("c.toml: ") == 3


def test_environment_variables_change_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL", "elsewhere")
    monkeypatch.setenv("SEEDS", "7")
    settings = load_settings([]).settings
    assert (settings.model, settings.seeds) == ("organism", 3)


def test_a_missing_configuration_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no such file" in refused(capsys, "run", "--config", str(tmp_path / "no.toml"))


def test_an_unknown_flag_names_the_one_that_was_probably_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean --sft.steps?" in refused(capsys, "run", "--sft.stepz", "5")
    assert "did you mean --dpo.learning-rate?" in refused(capsys, "run", "--dpo.learning_rate=1e-4")
    assert "did you mean" not in refused(capsys, "run", "--qqqq", "5")


@pytest.mark.parametrize("args", [["--sft"], ["--sft", "5"], ["--sl-cai={}"], ["--seeds", "2", "--evaluation"]])
def test_a_group_of_settings_is_not_a_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str]) -> None:
    out = tmp_path / "run"
    message = refused(capsys, "run", "--out", str(out), *args)
    assert "is a group of settings; give one of them, such as --" in message
    assert not out.exists()
