"""A full disk and an exhausted memory: the command stops with exit code 3 and says how to go on; nothing is lost."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest
from report.conftest import _make

from cai_base import experiment, report, store
from cai_base.cli import main
from cai_base.errors import exhausted
from cai_base.progress import Progress
from cai_base.store import Run


class PanicException(BaseException):
    """What a library in Rust raises, such as tokenizers: no Exception."""


FULL = OSError(errno.ENOSPC, "No space left on device", "run/report.html")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _make(tmp_path_factory, seeds=1)


def fails_with(error: BaseException) -> object:
    def fail(*arguments: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (FULL, "no space is left on the disk for run/report.html: make room"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "no space is left on the disk: make room"),
        (MemoryError(), "the memory is exhausted"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), "the memory is exhausted"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "the memory is exhausted"),
        (RuntimeError("can't start new thread"), "the memory is exhausted"),
        (ImportError("x.so: failed to map segment from shared object"), "the memory is exhausted"),
        (ValueError("zstd compress error: Allocation error : not enough memory"), "the memory is exhausted"),
        (PanicException("The global thread pool: ThreadPoolBuildError { kind: IOError }"), "the memory is exhausted"),
    ],
)
def test_what_the_machine_ran_out_of_is_said_with_exit_code_3(
    run: Path, error: BaseException, says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "write", fails_with(error))
    assert main(["report", str(run)]) == 3
    said = " ".join(capsys.readouterr().err.split())
    assert f"cai-base: {says}" in said
    assert "what is stored is whole" in said
    assert "Traceback" not in said


def test_a_run_on_a_full_disk_says_how_to_continue(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = Run.create(tmp_path / "stopped", Run.watch(run).config, {})

    def resume(directory: Path, progress: Progress, max_cost: float | None) -> None:
        stopped.commit(write={"more.json": b"{}\n"})

    monkeypatch.setattr(experiment, "resume", resume)
    monkeypatch.setattr(store, "write_atomic", fails_with(FULL))
    assert main(["resume", str(stopped.directory)]) == 3
    said = " ".join(capsys.readouterr().err.split())
    assert "no space is left on the disk" in said
    assert f"then continue with: cai-base resume {stopped.directory}" in said


def test_another_error_is_a_defect_and_not_hidden(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "write", fails_with(RuntimeError("a defect of ours")))
    with pytest.raises(RuntimeError, match="a defect of ours"):
        main(["report", str(run)])
    assert exhausted(OSError(errno.EACCES, "Permission denied")) is None
    assert exhausted(ImportError("x.so: failed to map segment from shared object: Operation not permitted")) is None


@pytest.mark.parametrize("log", ["/dev/full", "a file"])
def test_a_run_of_a_study_on_a_full_disk_stops_resumable_though_its_log_cannot_say_so(log: str, tmp_path: Path) -> None:
    program = (
        "import errno, sys\nfrom cai_base.studies import worker\n"
        "def work(*arguments): raise OSError(errno.ENOSPC, 'No space left on device', 'run')\n"
        "worker.work = work\nsys.argv[1:] = ['study', 'one']\nsys.exit(worker.main())\n"
    )
    with Path(tmp_path / "log" if log == "a file" else log).open("wb") as file:
        ended = subprocess.run([sys.executable, "-c", program], stdout=file, stderr=file, check=False)
    assert ended.returncode == 3
    if log == "a file":
        assert "no space is left on the disk for run: make room" in (tmp_path / "log").read_text()
