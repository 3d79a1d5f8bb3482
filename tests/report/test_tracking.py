"""Curves in trackers: they have the values that the run stored, each step once, after any interruption."""

import contextlib
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from small_run import PROMPTS

from cai_base import paths
from cai_base.cli import main
from cai_base.errors import UserError
from cai_base.integrations.tracking.follow import following
from cai_base.integrations.tracking.points import Point
from cai_base.integrations.tracking.send import AnotherSender, Sender, begin
from cai_base.integrations.tracking.sinks import TensorBoard, WeightsAndBiases, check_trackers
from cai_base.progress import Progress
from cai_base.store import TRACKERS

MakeRun = Callable[..., Path]
Curves = Mapping[tuple[str, int], float]


@pytest.fixture
def run(make_run: MakeRun) -> Path:
    """Two seeds, with pages that a tracker takes as they are."""
    directory = make_run(seeds=2)
    for page in (paths.REPORT_HTML, paths.REPORT_MARKDOWN):
        (directory / page).write_text("the page", encoding="utf-8")
    return directory


def in_run(run: Path, seed: int, phase: str = "dpo") -> Curves:
    """The curves of a phase as the run stored them, by name and step."""
    lines = (run / paths.metrics(seed, phase)).read_text(encoding="utf-8").splitlines()
    return {
        (f"{phase}/{name}", step["step"] + 1): value
        for step in map(json.loads, lines)
        for name, value in step.items()
        if name in ("loss", "margin", "accuracy")
    }


def in_tensorboard(run: Path, seed: int) -> list[tuple[str, int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = run / TRACKERS / "tensorboard" / paths.seed_folder(seed)
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(tag, one.step, one.value) for tag in events.Tags()["scalars"] for one in events.Scalars(tag)]


def in_trackio(project: str, name: str) -> list[tuple[str, int, float]]:
    from trackio import sqlite_storage

    return _curves_of(sqlite_storage.SQLiteStorage.get_logs(project, name))


def in_weights_and_biases(run: Path, seed: int) -> list[tuple[str, int, float]]:
    """From all offline files of a seed, as `wandb sync` would send them."""
    files = sorted((run / TRACKERS / "wandb" / "wandb").glob(f"offline-run-*-seed-{seed}/*.wandb"))
    return _curves_of([line for file in files for line in offline_history(file)])


def _curves_of(lines: Iterable[Mapping[str, float]]) -> list[tuple[str, int, float]]:
    return [
        (key, int(line[f"{key.rpartition('/')[0]}/step"]), value)
        for line in lines
        for key, value in line.items()
        if key.startswith(("sft/", "dpo/", "eval/")) and not key.endswith("/step")
    ]


def send(run: Path, tracker: str) -> int:
    sender = Sender(run, tracker)
    try:
        return sender.send(files=True)
    finally:
        sender.close()


def test_tensorboard_shows_the_curves_that_the_run_stored(run: Path) -> None:
    assert main(["track", str(run), "--to", "tensorboard"]) == 0
    for seed in (0, 1):
        shown = in_tensorboard(run, seed)
        curves = {(name, step): value for name, step, value in shown}
        assert len(curves) == len(shown)
        assert {key: curves[key] for key in in_run(run, seed)} == pytest.approx(in_run(run, seed), rel=1e-6)
        figure = json.loads((run / paths.RESULTS).read_text(encoding="utf-8"))["arms"]["cai"]["attack_success_rate"]
        assert curves["eval/cai/attack_success_rate", 20] == pytest.approx(figure["per_seed"][seed], rel=1e-6)
        assert curves["eval/attack_success_rate", 20] == curves["eval/cai/attack_success_rate", 20]


def test_what_a_tracker_has_is_not_sent_again(run: Path) -> None:
    begin(run, ["tensorboard"])
    assert send(run, "tensorboard") > 0
    assert send(run, "tensorboard") == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seeds": {"0": {"points": {"sft": -1}}}}, "must be at least 0"),
        ({"seeds": {"0": {"sending": {"sft": -1}}}}, "must be at least 0"),
        ({"seeds": {"77": {}}}, "seeds: '77' is no seed of this run"),
        ({"seeds": {"first": {}}}, "seeds: 'first' is no seed of this run"),
    ],
)
def test_counts_below_zero_and_seeds_that_the_run_has_not_are_refused(
    run: Path, change: dict[str, Any], says: str
) -> None:
    begin(run, ["tensorboard"])
    file = run / TRACKERS / "tensorboard.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=says) as caught:
        send(run, "tensorboard")
    assert str(file) in str(caught.value)


@contextlib.contextmanager
def dying_after(
    points: int, tracker: type[TensorBoard] | type[WeightsAndBiases], patch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A tracker that takes so many points, and then none."""
    log, sent = tracker.log, 0

    def dies(sink: Any, point: Point, number: int) -> None:
        nonlocal sent
        sent += 1
        if sent > points:
            raise ConnectionError
        log(sink, point, number)

    with patch.context() as inside:
        inside.setattr(tracker, "log", dies)
        yield


def test_after_a_crash_while_sending_each_step_is_there_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(run, ["tensorboard"])
    with dying_after(7, TensorBoard, monkeypatch), pytest.raises(ConnectionError):
        send(run, "tensorboard")
    send(run, "tensorboard")
    for seed in (0, 1):
        times = Counter((name, step) for name, step, _ in in_tensorboard(run, seed))
        assert set(times.values()) == {1}
        assert set(in_run(run, seed)) <= set(times)


def test_trackio_has_every_step_once(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trackio = pytest.importorskip("trackio")
    from trackio import sqlite_storage

    monkeypatch.setenv("TRACKIO_PROJECT", f"test-{tmp_path.name}")
    monkeypatch.setattr(sqlite_storage, "TRACKIO_DIR", tmp_path)
    begin(run, ["trackio"])
    assert send(run, "trackio") > 0
    assert send(run, "trackio") == 0
    project = os.environ["TRACKIO_PROJECT"]
    names = sorted(one.name for one in trackio.Api().runs(project))
    assert [name.rpartition("-seed-")[2] for name in names] == ["0", "1"]
    for seed, name in enumerate(names):
        logs = sqlite_storage.SQLiteStorage.get_logs(project, name)
        steps = [line["step"] for line in logs if "answers" not in line]
        assert steps == list(range(len(steps)))
        curves = {(name, step): value for name, step, value in _curves_of(logs)}
        assert {key: curves[key] for key in in_run(run, seed)} == pytest.approx(in_run(run, seed))


def test_weights_and_biases_has_every_step_once_without_an_account(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    begin(run, ["wandb"])
    assert send(run, "wandb") > 0
    assert send(run, "wandb") == 0
    for seed in (0, 1):
        folder = run / TRACKERS / "wandb" / "wandb"
        (file,) = folder.glob(f"offline-run-*-seed-{seed}/*.wandb")
        history = [line for line in offline_history(file) if "answers" not in line]
        steps = [line["_step"] for line in history]
        assert steps == list(range(len(steps)))
        curves = {(name, step): value for name, step, value in in_weights_and_biases(run, seed)}
        assert {key: curves[key] for key in in_run(run, seed)} == pytest.approx(in_run(run, seed))


@pytest.mark.slow
def test_after_a_crash_while_sending_offline_files_of_weights_and_biases_have_each_step_once(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    begin(run, ["wandb"])
    sender = Sender(run, "wandb")
    with dying_after(7, WeightsAndBiases, monkeypatch), pytest.raises(ConnectionError):
        sender.send(files=True)
    sender.close()
    until = time.monotonic() + 20
    while not in_weights_and_biases(run, 0) and time.monotonic() < until:  # its own process writes the file
        time.sleep(0.1)
    assert in_weights_and_biases(run, 0)
    time.sleep(1)  # the library names a folder by the second
    send(run, "wandb")
    for seed in (0, 1):
        times = Counter((name, step) for name, step, _ in in_weights_and_biases(run, seed))
        assert set(times.values()) == {1}
        assert set(in_run(run, seed)) <= set(times)


def offline_history(file: Path) -> Iterator[dict[str, float]]:
    """The steps in an offline file of Weights & Biases: a log of LevelDB's form, whose records are protocol buffers."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, block = file.read_bytes(), 32768
    place, parts = 7, b""
    while place + 7 <= len(data):
        if block - place % block < 7:
            place += block - place % block
            continue
        size, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        parts += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            record = Record.FromString(parts)
            parts = b""
            if record.HasField("history"):
                items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
                yield {key: json.loads(value) for key, value in items.items()}


TRACKED = (
    "--seeds 1 --sft.steps 4 --sft.batch-size 1 --evaluate-every 2 --revision.prompts 12 --revision.rounds 1 "
    "--dpo.steps 4 --dpo.batch-size 2 --arms sft,cai --threads 1 --revision.response-tokens 30 "
    "--revision.critique-tokens 12 --evaluation.response-tokens 16 --lora.rank 2"
).split()


def _stored_phases(out: Path) -> Mapping[str, int]:
    file = out / "manifest.json"
    return json.loads(file.read_bytes()).get("progress", {}) if file.exists() else {}


@pytest.mark.slow
@pytest.mark.parametrize("tracker", ["tensorboard", "trackio", "wandb"])
def test_a_tracked_run_that_is_killed_and_resumed_has_every_step_once(
    tracker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 once SFT has stored steps; then again in DPO, together with the process that sends."""
    pytest.importorskip(tracker)
    from trackio import sqlite_storage

    environment = {"WANDB_MODE": "offline", "TRACKIO_PROJECT": "killed", "TRACKIO_DIR": str(tmp_path / "trackio")}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sqlite_storage, "TRACKIO_DIR", tmp_path / "trackio")
    (tmp_path / "asked.jsonl").write_text(PROMPTS)
    out = tmp_path / "run"
    prompts = ["--evaluation.prompts", str(tmp_path / "asked.jsonl")]
    args = ["run", "--out", str(out), *TRACKED, *prompts, "--track", tracker]
    for phase in ("sft", "dpo"):
        process = subprocess.Popen([sys.executable, "-m", "cai_base", *args], stderr=subprocess.DEVNULL)
        while process.poll() is None and phase not in _stored_phases(out):
            time.sleep(0.02)
        if phase == "dpo":
            for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                os.kill(int(child), signal.SIGKILL)
        process.kill()
        assert process.wait() == -signal.SIGKILL, f"the run ended before {phase} could be killed"
        args = ["resume", str(out)]
    ended = subprocess.run([sys.executable, "-m", "cai_base", *args], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "incomplete" not in ended.stderr
    experiment = json.loads((out / TRACKERS / f"{tracker}.json").read_bytes())["experiment"]
    shown = {
        "tensorboard": lambda: in_tensorboard(out, 0),
        "trackio": lambda: in_trackio("killed", f"{experiment}-seed-0"),
        "wandb": lambda: in_weights_and_biases(out, 0),
    }[tracker]()
    curves = {(name, step): value for name, step, value in shown}
    assert len(curves) == len(shown), "a step is there twice"
    for phase in ("sft", "dpo"):
        stored = in_run(out, 0, phase)
        assert [step for name, step in stored if name == f"{phase}/loss"] == [1, 2, 3, 4]
        assert {key: curves[key] for key in stored} == pytest.approx(stored, rel=1e-6)
    assert {step for name, step in curves if name == "eval/cai/attack_success_rate"} == {2, 4}


def test_a_run_says_once_and_at_once_that_a_tracker_fails_and_at_its_end_how_to_send_the_rest(
    run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    begin(run, ["tensorboard"])
    (run / TRACKERS / "tensorboard").write_text("a file where a folder must be")
    said = ""
    with following(run, Progress()):
        until = time.monotonic() + 240  # the process that sends is the last to get a busy machine's time
        while "tensorboard: nothing can be sent now" not in said and time.monotonic() < until:
            time.sleep(0.1)
            said += " ".join(capfd.readouterr().err.split())
    assert "tensorboard: nothing can be sent now (NotADirectoryError: " in said, "while the run works"
    assert "The run goes on, and sending is tried again every 30 seconds; see" in said
    end = " ".join(capfd.readouterr().err.split())
    assert end.count("nothing can be sent now") == 0
    assert "tensorboard is incomplete" in end
    assert f"cai-base track {run}" in end


KILLED = """
import os, signal, sys
from pathlib import Path
from cai_base.integrations.tracking.send import Sender
from cai_base.integrations.tracking.sinks import TensorBoard

log = TensorBoard.log

def killed(sink, point, number):
    if number == 7:
        sink.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    log(sink, point, number)

TensorBoard.log = killed
Sender(Path(sys.argv[1]), "tensorboard").send(files=True)
"""
"""Sends a run to TensorBoard, and is killed between two points of a batch, when seven are in its file."""


def test_after_kill_9_of_the_process_that_sends_each_step_is_there_once(run: Path) -> None:
    begin(run, ["tensorboard"])
    killed = subprocess.run([sys.executable, "-c", KILLED, str(run)], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len({step for _, step, _ in in_tensorboard(run, 0)}) == 7
    send(run, "tensorboard")
    for seed in (0, 1):
        times = Counter((name, step) for name, step, _ in in_tensorboard(run, seed))
        assert set(times.values()) == {1}
        assert set(in_run(run, seed)) <= set(times)


def test_a_run_that_another_user_tracked_is_not_sent_before_this_user_says_so(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(run, ["tensorboard"])
    file = run / TRACKERS / "tensorboard.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"by": "somebody else"}))
    with following(run, Progress()):
        pass
    said = " ".join(capsys.readouterr().err.split())
    assert "tensorboard: nothing is sent, because another user or another machine named this tracker" in said
    assert f"cai-base track {run}" in said
    assert not (run / TRACKERS / "tensorboard").exists()


@pytest.mark.parametrize("name", ["tensorboard.lock", "tensorboard.log", "tensorboard", "tensorboard/seed-0"])
def test_a_tracker_s_files_are_not_written_through_a_link(run: Path, tmp_path: Path, name: str) -> None:
    begin(run, ["tensorboard"])
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "events.out.tfevents.1").write_text("keep")
    link = run / TRACKERS / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(outside)
    with pytest.raises(UserError, match="is a link, and other files would be written through it; remove it"):
        Sender(run, "tensorboard")
    with pytest.raises(UserError, match="is a link"), following(run, Progress.quiet()):
        pass
    assert [file.name for file in outside.iterdir()] == ["events.out.tfevents.1"]


def test_two_processes_do_not_send_one_run_to_one_tracker(run: Path) -> None:
    begin(run, ["tensorboard"])
    first = Sender(run, "tensorboard")
    with pytest.raises(AnotherSender, match="another process is sending this run to tensorboard"):
        Sender(run, "tensorboard")
    first.close()
    assert send(run, "tensorboard") > 0


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--to", "tensorbord"], "--to: unknown tracker 'tensorbord'; did you mean 'tensorboard'?"),
        ([], "has no tracker; name one"),
    ],
)
def test_track_says_which_trackers_there_are(
    run: Path, flags: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["track", str(run), *flags]) == 2
    assert says in " ".join(capsys.readouterr().err.split())


def test_a_run_refuses_an_unknown_tracker_before_work_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.chdir(tmp_path):
        assert main(["run", "--track", "wandb,excel"]) == 2
    assert "unknown tracker" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_refuses_weights_and_biases_without_a_key_before_work_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the real library, in a process of its own."""
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    with contextlib.chdir(tmp_path):
        assert main(["run", "--track", "wandb"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "Weights & Biases: No API key configured" in said
    assert "set WANDB_API_KEY, run `wandb login`, or set WANDB_MODE=offline" in said
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_trackers(["wandb"])


def test_a_tracker_without_a_key_is_one_sentence_and_the_others_are_sent(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb = pytest.importorskip("wandb")
    pytest.importorskip("tensorboard")
    copy = shutil.copytree(run, tmp_path / "run")

    def refuse(**_: object) -> None:
        raise wandb.errors.UsageError("No API key configured")

    monkeypatch.setattr(wandb, "init", refuse)
    assert main(["track", str(copy), "--to", "wandb,tensorboard"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "wandb: Weights & Biases: No API key configured; set WANDB_API_KEY, run `wandb login`, or" in said
    assert "tensorboard: " in said
    assert "Traceback" not in said


def test_the_template_of_a_report_in_weights_and_biases_plots_curves_that_are_sent(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for its library, which keeps the panels."""
    page = (Path(__file__).parents[2] / "docs" / "tracking.md").read_text(encoding="utf-8")
    (template,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    panels: list[dict[str, object]] = []
    library = ModuleType("wandb_workspaces.reports.v2")
    vars(library).update(
        LinePlot=lambda **fields: panels.append(fields),
        Runset=SimpleNamespace,
        PanelGrid=SimpleNamespace,
        MarkdownBlock=SimpleNamespace,
        Report=lambda **fields: SimpleNamespace(save=lambda: None, url=fields["title"]),
    )
    for name in ("wandb_workspaces", "wandb_workspaces.reports"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, library.__name__, library)
    monkeypatch.setattr(sys.modules["wandb_workspaces.reports"], "v2", library, raising=False)
    exec(compile(template, "docs/tracking.md", "exec"), {})
    begin(run, ["tensorboard"])
    send(run, "tensorboard")
    curves = {name for name, _, _ in in_tensorboard(run, 0)}
    assert {name for panel in panels for name in panel["y"]} <= curves  # type: ignore[attr-defined]
    assert {panel["x"] for panel in panels} == {"sft/step", "dpo/step", "eval/step"}
