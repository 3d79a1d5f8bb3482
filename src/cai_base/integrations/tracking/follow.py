"""Sends a run to its trackers during the run, from one process per tracker, so that the run never waits for one."""

import os
import select
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import RawIOBase
from pathlib import Path

from cai_base.integrations.tracking.send import AnotherSender, Sender, check_places, is_ours, trackers_of
from cai_base.progress import Progress
from cai_base.store import TRACKERS, open_to_append
from cai_base.text import command_on, one_line

INTERVAL = 2.0
"""Seconds between two reads of the run's folder."""
PATIENCE = 30.0
"""Seconds that a finished run waits for its trackers to receive everything."""
RETRY = 30.0
"""Seconds before a failed tracker is retried."""
REASON = 200
"""The most characters of an error that the run shows; the tracker's log has all of it."""


@contextmanager
def following(directory: Path, progress: Progress) -> Iterator[None]:
    """Send the run to its trackers, if it has any, while the block is executed.

    A tracker that somebody else named, or this user on another machine, gets nothing: a folder from elsewhere must not
    use this user's account. A tracker that fails is named when it first does. At the end, incomplete trackers are
    named, with the command that sends the rest.

    Raises:
        UserError: a place of a tracker's files is a link.
    """
    names = trackers_of(directory)
    for name in names:
        check_places(directory, name)
    followers = {name: _start(directory, name) for name in names if is_ours(directory, name)}
    listeners = [threading.Thread(target=_listen, args=(one, progress), daemon=True) for one in followers.values()]
    for listener in listeners:
        listener.start()
    for name in names:
        if name not in followers:
            progress.say(
                f"{name}: nothing is sent, because another user or another machine named this tracker; send it with: "
                f"{command_on('track', directory)}"
            )
    try:
        yield
    finally:
        for process in followers.values():
            assert process.stdin is not None
            process.stdin.close()  # it then sends the rest and ends, also if this process is killed
        end = time.monotonic() + PATIENCE
        for (name, process), listener in zip(followers.items(), listeners, strict=True):
            ended_well = _ended_well(process, end - time.monotonic())
            listener.join(1.0)  # what it said stands before its end
            if not ended_well:
                progress.say(
                    f"{name} is incomplete (see {_log(directory, name)}); send the rest with: "
                    f"{command_on('track', directory)}"
                )


def follow(directory: Path, tracker: str, output: RawIOBase) -> bool:
    """Send a run to one tracker until standard input ends. Returns whether the tracker has everything.

    After an error, it is printed and the tracker is retried later. The first error is also a sentence in `output`.
    """
    sender: Sender | None = None
    silent = True
    wait, at_end = 0.0, False
    while not at_end:
        at_end = bool(select.select([sys.stdin], [], [], wait)[0])
        try:
            sender = sender or _only_sender(directory, tracker)
            sender.send(files=at_end)
            if at_end:
                sender.close()
            wait = INTERVAL
        except Exception as error:  # a tracker's library may raise anything, which must not affect the run
            traceback.print_exc()
            if silent:
                silent = False
                _say(_failure(directory, tracker, error), output)
            if sender is not None:
                sender.release()
            if at_end:
                return False
            sender, wait = None, RETRY
    return True


def _failure(directory: Path, tracker: str, error: Exception) -> str:
    reason = f"{type(error).__name__}: {one_line(str(error))[:REASON]}"
    return (
        f"{tracker}: nothing can be sent now ({reason}). The run goes on, and sending is tried again every "
        f"{RETRY:.0f} seconds; see {_log(directory, tracker)}"
    )


def _say(text: str, output: RawIOBase) -> None:
    """Give a line to the run, if it is still there: one that was killed does not read it."""
    with suppress(BrokenPipeError):
        output.write(f"{text}\n".encode())


def _listen(process: "subprocess.Popen[str]", progress: Progress) -> None:
    """Show what a tracker's process says, until it ends."""
    assert process.stdout is not None
    for line in process.stdout:
        progress.say(line.rstrip("\n"))


def _only_sender(directory: Path, tracker: str) -> Sender:
    """A sender, once no other process is sending: that of a run that was killed first sends what it has seen."""
    while True:
        try:
            return Sender(directory, tracker)
        except AnotherSender:
            time.sleep(INTERVAL / 4)


def _start(directory: Path, tracker: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "cai_base.integrations.tracking", str(directory), tracker]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open_to_append(_log(directory, tracker)) as log:  # in a new session, so that Ctrl-C does not reach it
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            start_new_session=True,
            text=True,
            encoding="utf-8",
        )


def _ended_well(process: "subprocess.Popen[str]", seconds: float) -> bool:
    try:
        return process.wait(max(0.1, seconds)) == 0
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False


def _log(directory: Path, tracker: str) -> Path:
    return directory / TRACKERS / f"{tracker}.log"
