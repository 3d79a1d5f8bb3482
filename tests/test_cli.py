"""What the command itself does: help, misspelt commands, signals, keys, and what it imports before it answers."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from cai_base import __version__
from cai_base.cli import COMMANDS, main
from cai_base.engines.tinker import service
from cai_base.errors import UserError
from cai_base.evaluation.judges import endpoint
from cai_base.settings.command_line import load_settings

TINY = (
    "--seeds 1 --sft.steps 400 --evaluate-every 400 --revision.prompts 4 --revision.rounds 1 --threads 1 "
    "--evaluation.response-tokens 4 --lora.rank 2 --accept rate,power,base,judge"
).split()


@pytest.mark.parametrize("args", [["--help"], ["-h"], ["help"]])
def test_help_lists_every_command_in_its_group(capsys: pytest.CaptureFixture[str], args: list[str]) -> None:
    assert main(args) == 0
    text = capsys.readouterr().out
    titles = [line for line in text.splitlines() if line in ("Make", "Look", "Ask", "Take")]
    assert titles == ["Make", "Look", "Ask", "Take"]
    assert all(f"\n  {name} " in text for name in COMMANDS)
    assert text.index("Make") < text.index("  resume RUN") < text.index("Look") < text.index("  report RUN")


def test_help_keeps_its_words_whole_in_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["--help"])
    words = capsys.readouterr().out.split()
    monkeypatch.setenv("COLUMNS", "60")
    main(["--help"])
    narrow = capsys.readouterr().out
    assert narrow.split() == words
    assert max(map(len, narrow.splitlines())) <= 60


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_the_version(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    assert main([flag]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize(("word", "remedy"), [("runn", "did you mean run?"), ("reprot", "did you mean report?")])
def test_a_misspelt_command_names_the_one_that_was_probably_meant(
    capsys: pytest.CaptureFixture[str], word: str, remedy: str
) -> None:
    assert main([word]) == 2
    assert capsys.readouterr().err == f"cai-base: {word}: no such command; {remedy}\n"


def test_an_unknown_command_lists_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["qqqq"]) == 2
    assert "the commands are run, resume, preflight, cost, study, report" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(capsys: pytest.CaptureFixture[str], name: str) -> None:
    with suppress(SystemExit):  # argparse
        main(["help", name])
    assert capsys.readouterr().out.startswith(f"usage: cai-base {name}")


@pytest.mark.parametrize("amount", ["nan", "inf", "-1", "0", "x"])
def test_a_limit_that_is_not_an_amount_of_money(capsys: pytest.CaptureFixture[str], amount: str) -> None:
    assert main(["resume", "run", f"--max-cost={amount}"]) == 2
    assert f"--max-cost: '{amount}' is not a number of dollars greater than 0" in capsys.readouterr().err


HEAVY = ("torch", "transformers", "scipy", "matplotlib")


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["run", "--help"],
        ["runn"],
        ["run", "--sft.steps", "0"],
        ["run", "--accept", "rates"],
        ["run", "--config", "wrong.toml"],
        ["run", "--prompts", "wrong.csv"],
        ["run", "--constitution", "wrong.toml"],
        ["run", "--evaluation.prompts", "wrong.csv"],
        ["preflight", "--prompts", "wrong.csv"],
        ["cost", "--prompts", "wrong.csv"],
        ["resume", "."],
        ["report", "."],
    ],
    ids=" ".join,
)
def test_nothing_slow_is_imported_before_wrong_input_is_refused(tmp_path: Path, args: list[str]) -> None:
    (tmp_path / "wrong.csv").write_text("goal\nx\n")
    (tmp_path / "wrong.toml").write_text("x = 1\n")
    args = [str(tmp_path / arg) if arg.startswith("wrong.") or arg == "." else arg for arg in args]
    code = (
        "import sys\nfrom cai_base.cli import main\n"
        f"code = main({args!r})\nprint(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
        "sys.exit(code)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == (0 if "--help" in args else 2)
    assert "Traceback" not in ended.stderr
    assert ended.stderr.splitlines()[-1] == ""


def test_sigterm_ends_a_run_as_ctrl_c_does_and_says_how_to_continue(tmp_path: Path) -> None:
    run = tmp_path / "my run"
    command = [sys.executable, "-m", "cai_base", "run", *TINY, "--out", str(run)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 300
        while not (run / "manifest.json").exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 3, err
    assert err.splitlines()[-1] == f"cai-base: stopped; continue with: cai-base resume '{run}'"


def test_sigterm_before_a_run_has_begun_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cai_base.inputs.gather", lambda settings: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    assert main(["run", "--out", str(tmp_path / "run")]) == 3
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(("command", "step"), [("run", "begin"), ("preflight", "examine")])
def test_ctrl_c_before_a_run_has_begun_says_that_nothing_was_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str, step: str
) -> None:
    monkeypatch.setattr(f"cai_base.experiment.{step}", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert main([command, "--out", str(tmp_path / "run")]) == 3
    assert capsys.readouterr().err == "cai-base: stopped; nothing was started: give the same command again\n"


def test_resume_takes_no_settings_and_says_how_to_start_another_run_with_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("config.json", "manifest.json"):
        (tmp_path / name).write_text("{}")
    assert main(["resume", str(tmp_path), "--sft.steps", "50"]) == 2
    assert capsys.readouterr().err == (
        "cai-base: --sft.steps: a run keeps its settings, so cai-base resume takes none; to start another run with "
        f"this one: cai-base run --config {tmp_path}/config.json --sft.steps 50\n"
    )
    assert main(["resume", str(tmp_path), "--nope"]) == 2
    assert "unknown arguments: --nope; see cai-base resume --help" in capsys.readouterr().err


@pytest.mark.parametrize("args", [["evaluate", "organism", "--suite", "hhh"], ["export", "run"], ["study", "planted"]])
def test_an_empty_out_is_not_the_working_directory(capsys: pytest.CaptureFixture[str], args: list[str]) -> None:
    assert main([*args, "--out", ""]) == 2
    assert "--out: is empty; give a path" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["HF_TOKEN", "WANDB_API_KEY"])
def test_a_key_that_a_library_reads_may_be_in_dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(key, "from_the_environment")
    Path(".env").write_text(f"{key}=from_the_file\nSEEDS=7\n")
    main(["resume", "nowhere"])
    assert os.environ[key] == "from_the_environment"
    monkeypatch.delenv(key)
    main(["resume", "nowhere"])
    assert os.environ[key] == "from_the_file"
    assert "SEEDS" not in os.environ


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"A=1\nHF_TOKEN=\xff\n", ".env:2: not UTF-8 text (byte 0xff)"),
        (b"A=1\n\nHF_TOKEN=secret\0word\n", ".env:3: has the character NUL"),
        ("HF_TOKEN=sécret\n".encode(), ".env: HF_TOKEN: no key has such characters in it"),
        (b"A=" + b"a" * 2**20, ".env: has 1,048,578 bytes and at most 1,048,576 are read"),
        (None, ".env: this is a FIFO and no regular file"),
    ],
)
def test_a_spoiled_dotenv_is_refused_with_file_and_line_and_without_its_values(
    content: bytes | None,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for key in ("OPENAI_API_KEY", "TINKER_API_KEY"):
        monkeypatch.delenv(key, raising=False)
    if content is None:
        os.mkfifo(".env")
    else:
        Path(".env").write_bytes(content)
    assert main(["resume", "nowhere"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert says in said
    assert "cret" not in said
    if "HF_TOKEN:" not in says:  # another key is read where it is used
        for read in (endpoint.api_key, service.api_key):
            with pytest.raises(UserError, match=re.escape(says)):
                read()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_and_the_flags_of_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out

    def completed(*words: str) -> list[str]:
        typed = " ".join(f"'{word}'" for word in ("cai-base", *words))
        ask = f'{script}\nCOMP_WORDS=({typed}); COMP_CWORD={len(words)}; _cai_base; printf "%s\\n" "${{COMPREPLY[@]}}"'
        shown = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
        return shown.stdout.split()

    assert completed("re") == ["resume", "report"]
    assert completed("run", "--dpo.be") == ["--dpo.beta"]
    assert completed("watch", "RUN", "--p") == ["--port"]
    assert completed("watch", "RUN", "--dpo") == []
    assert completed("cost", "--dpo.be") == ["--dpo.beta"]
    assert completed("study", "planted", "--see") == ["--seeds"]
    assert completed("study", "planted", "--from") == []
    assert completed("evaluate", "RUN", "--judging.con") == ["--judging.concurrency"]
    assert completed("evaluate", "RUN", "--dpo") == []
    assert completed("evaluate", "RUN", "--dt") == ["--dtype"]
    assert completed("study", "st") == ["stages"]
    assert completed("completion", "b") == ["bash"]
    assert completed("organism", "b") == ["build"]
    assert completed("organism", "build", "--w") == ["--without"]
    assert completed("run", "--dpo.loss", "s") == ["sigmoid", "simpo"]
    assert completed("evaluate", "RUN", "--dtype", "b") == ["bfloat16"]
    assert completed("organism", "measure", "x", "--split", "t") == ["train", "test"]
    assert completed("chat", "RUN", "--arm") == ["--arm", "--arms"]
    for command in (*COMMANDS, *(f"organism {word}" for word in ("build", "measure", "sibling", "card"))):
        words = command.split()
        with suppress(SystemExit):
            main([*words, "--help"])
        listed = set(re.findall(r"(?m)^ +(?:-\w, )?(--[\w.-]+)", capsys.readouterr().out))
        assert listed <= set(completed(*words, *(["x"] if len(words) == 1 else []), "--")), command


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_every_command(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS)
    assert ("bashcompinit" in script) == (shell == "zsh")


def test_threads_wait_without_spinning_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert main(["--version"]) == 0
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    assert main(["--version"]) == 0
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.parametrize("command", ["run", "preflight", "cost"])
def test_printed_settings_say_where_they_are_from_and_make_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text("seeds = 1\n[sft]\nsteps = 100\n[dpo]\nbeta = 0.3\n")
    flags = ["--config", "small.toml", "--dpo.beta", "0.2", "--principles", "harm"]
    assert main([command, *flags, "--print-settings"]) == 0
    printed = capsys.readouterr().out
    assert "seeds = 1  # small.toml: seeds\n" in printed
    assert "steps = 100  # small.toml: sft.steps\n" in printed
    assert "beta = 0.2  # --dpo.beta\n" in printed
    assert "rounds = 4\n" in printed, "a default has no remark"
    Path("all.toml").write_text(printed)
    assert load_settings(["--config", "all.toml"]).settings == load_settings(flags).settings
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.toml", "small.toml"], "nothing was started"


def test_a_folder_that_is_no_run_is_refused_before_anything_heavy_is_imported() -> None:
    code = (
        "import sys; from cai_base.cli import main; "
        "codes = {main([*one.split(), 'nowhere']) for one in ('verify', 'watch', 'export --out x', 'compare')}; "
        "print(codes, {'torch', 'numpy', 'matplotlib'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "{2} set()\n"
    assert done.stderr.count("nowhere: not a run (there is no such folder)") == 4
