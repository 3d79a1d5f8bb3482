"""A judge on this machine: llama.cpp's server in a process of its own, with a chat model from a GGUF file.

The server listens on the loopback address only, at a port that it takes itself and names to the process that started
it. Each start has a key of its own, which the server requires: other users of the machine have no use of it, and the
user's own key is sent nowhere. If it dies, it is started anew, and only the questions without a reply are sent again: a
reply counts only while the process that was asked is alive, so none is taken from whoever took over its port. It ends
together with the process that started it, however that process ends.
"""

import atexit
import importlib.util
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cai_base.engines import Meter
from cai_base.errors import Stopped, UserError, install
from cai_base.evaluation.judges.endpoint import LARGEST, Endpoint, Own
from cai_base.evaluation.judges.replies import Keep, Question, Reply
from cai_base.progress import Progress
from cai_base.reading import quote
from cai_base.settings.schema import Judging

PACKAGES = ("xllamacpp", "openai")
INSTALL = install("local-judge")
REMEDY = "give the path of a chat model's GGUF file"
CONTEXT = 8192
"""Tokens of a question and its reply together."""
STARTING = 600.0
"""Seconds that a start may take, the loading of the model included."""
ATTEMPTS = 4
"""After this many starts in a row without a reply, the server counts as unable to run."""
LONGEST_TEXT = 600
"""Characters of a reply's reasoning, at most: a small model that repeats itself would fill the whole reply."""
STEPS = 10
"""A number of a reply is at one of these equal steps: the grammar knows no bounds of a fraction."""
QUOTED = 160
"""Characters of the server's last words that a message repeats."""


def check_file(flag: str, file: str) -> None:
    """Check that a GGUF file is there, and what serves it.

    Raises:
        UserError: there is none, or a package is missing.
    """
    path, argument = Path(file), f"--{flag} gguf:{file}"
    if not path.is_file():
        raise UserError(f"{argument}: there is no such file; {REMEDY}")
    with path.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise UserError(f"{argument}: is no GGUF file; {REMEDY}")
    absent = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if absent:
        raise UserError(f"{argument}: needs {' and '.join(absent)}, not installed here: {INSTALL}")


@dataclass(frozen=True, slots=True)
class Address:
    """Where one start of the server answers.

    Attributes:
        url: the base of its endpoint.
        key: what it requires with each request.
        alias: the name of its model, which it tells only to who has the key.
    """

    url: str
    key: str
    alias: str


class LlamaServer:
    """The server's process: started at the first use, and again whenever it dies.

    Args:
        file: the chat model.
        threads: CPU threads.
        command: what is started in place of this module, with the file and the number of threads behind it. It reads a
            line of JSON with `key` and `alias` from standard input, and writes its port to standard output.
    """

    def __init__(self, file: Path, threads: int, command: Sequence[str] = ()) -> None:
        self._file, self._threads = file, threads
        self._command = command or (sys.executable, "-m", __name__)
        self._address: Address | None = None  # of the process that is alive, once it listens
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = threading.Event()
        self._changing = threading.Lock()  # held while the process is started anew, or ended for good
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as this object
        self.starts = 0
        self._starts_before_reply = 0

    @property
    def pid(self) -> int | None:
        """The number of its process; None before the first start."""
        return None if self._process is None else self._process.pid

    def ready(self) -> Address:
        """Its address, as soon as it answers there.

        Raises:
            Stopped: it does not come up.
        """
        if self._process is None:
            self._start()
            threading.Thread(target=self._watch, daemon=True).start()
            atexit.register(self.close)
        deadline = time.monotonic() + STARTING
        while (address := self._address) is None or not self._answers(address):
            if self._given_up or time.monotonic() > deadline:
                self.close()
                raise Stopped(
                    f"llama.cpp's server does not run with {self._file}{self._last_words()}; see that it is a chat "
                    f"model that this version reads, and that it fits into memory with {CONTEXT} tokens of context"
                )
            time.sleep(0.1)
        return address

    def serves(self, address: Address) -> bool:
        """Whether the process that named this address is alive, so that no other can have answered there."""
        return address == self._address and self._alive

    def replied(self) -> None:
        """Note that it replied, so that `ATTEMPTS` counts from here again."""
        self._starts_before_reply = self.starts

    def close(self) -> None:
        """End the process, for good."""
        with self._changing:
            self._closed.set()
            if self._process is not None:
                self._process.kill()
                self._process.wait()

    @property
    def _alive(self) -> bool:
        process = self._process
        if process is None or process.returncode is not None:
            return False
        try:  # `poll` would say nothing while the other thread waits
            return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:
            return False

    @property
    def _given_up(self) -> bool:
        dead = self._process is not None and not self._alive
        return dead and self.starts - self._starts_before_reply >= ATTEMPTS

    def _start(self) -> None:
        self.starts += 1
        self._key, self._alias = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        self._process = process = subprocess.Popen(
            [*self._command, str(self._file.resolve()), str(self._threads)],
            stdin=subprocess.PIPE,  # it closes when this process ends
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended already, which `_watch` finds
            process.stdin.write(json.dumps({"key": self._key, "alias": self._alias}).encode() + b"\n")
            process.stdin.flush()

    def _watch(self) -> None:
        while (process := self._process) is not None and process.stdout is not None:
            port = process.stdout.readline().strip()
            if port.isdigit():
                self._address = Address(f"http://127.0.0.1:{int(port)}/v1", self._key, self._alias)
            process.wait()
            self._address = None
            process.stdout.close()
            if self._closed.wait(0.2) or self._given_up:
                return
            with self._changing:
                if self._closed.is_set():
                    return
                self._start()

    def _answers(self, address: Address) -> bool:
        request = urllib.request.Request(f"{address.url}/models", headers={"Authorization": f"Bearer {address.key}"})
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5) as response:
                content = response.read(LARGEST)
        except (OSError, HTTPException):  # it still loads, or has died
            return False
        return address.alias.encode() in content and self.serves(address)

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        errors = [line for line in lines if "error" in line.lower()] or lines
        return f" ({quote(' '.join(errors[-1].split()), QUOTED)})" if errors else ""


class LlamaSource:
    """Questions to a `LlamaServer`, one after another: two at a time would share the same processor.

    Args:
        server: started with the first question, so a run that has all its replies starts none.
        model: its name in requests.
        settings: how to ask.
        progress: shows a message when the server starts.
    """

    def __init__(self, server: LlamaServer, model: str, settings: Judging, progress: Progress) -> None:
        self._server, self._model, self._progress = server, model, progress
        self._settings = settings.model_copy(update={"concurrency": 1})
        self.meter = Meter()

    def ask(self, questions: Sequence[Question], keep: Keep) -> None:
        waiting = {question.key: question for question in questions}
        failures: dict[str, Reply] = {}

        def take(question: Question, reply: Reply) -> None:
            if not self._server.serves(address):
                return  # who replied is not known
            if reply.final:
                self._server.replied()
                del waiting[question.key]
                keep(question, reply)
            else:
                failures[question.key] = reply

        while waiting:
            if not self._server.starts:
                self._progress.say(f"Starting llama.cpp's server with {self._model}")
            address = self._server.ready()
            own = Own(address.key, partial(self._server.serves, address))
            try:
                Endpoint(self._model, address.url, self._settings, enforceable, own).ask(list(waiting.values()), take)
            except Stopped:
                if self._server.serves(address):
                    raise
            if self._server.serves(address):  # it never died, so what failed would fail again
                for key, question in waiting.items():
                    keep(question, failures[key])
                return


def enforceable(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a reply with bounds that llama.cpp's grammar enforces while it samples."""
    return schema | {"properties": {name: _enforceable(field) for name, field in schema["properties"].items()}}


def _enforceable(field: dict[str, Any]) -> dict[str, Any]:
    if field["type"] == "string":
        return field | {"maxLength": LONGEST_TEXT}
    if field["type"] == "number":
        low, high = field["minimum"], field["maximum"]
        return field | {"enum": [round(low + (high - low) * step / STEPS, 6) for step in range(STEPS + 1)]}
    return field


def main(file: str, threads: str) -> None:
    """Serve until standard input closes, which is when the process that started this one has ended."""
    import xllamacpp

    secret = json.loads(sys.stdin.buffer.readline())  # not as arguments, which every user of the machine can read
    with os.fdopen(os.dup(1), "w") as starter:
        os.dup2(2, 1)  # what the library prints is no port
        parameters = xllamacpp.CommonParams()
        parameters.model.path = file
        parameters.hostnames, parameters.port = ["127.0.0.1"], 0
        parameters.api_keys, parameters.model_alias = [secret["key"]], {secret["alias"]}
        parameters.n_ctx, parameters.n_parallel = CONTEXT, 1
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = int(threads)
        parameters.ui = False
        server = xllamacpp.Server(parameters)
        print(urlsplit(server.listening_address).port, file=starter)
    sys.stdin.buffer.read()
    del server
    os._exit(0)  # it waits for open connections otherwise


if __name__ == "__main__":
    main(*sys.argv[1:])
