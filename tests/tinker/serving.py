"""A real Tinker-API server on this machine's CPU, started once for these tests (`make test-tinker`)."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).parents[2]
KEY = "tml-a-key-of-these-tests"


class Server:
    """One server process, which may be killed and restarted on the same port with its stored state.

    Args:
        state: where it keeps that.
        adapters: how many adapters and snapshots it holds; every one makes each of its steps dearer.
    """

    def __init__(self, state: Path, adapters: int = 16) -> None:
        self._state, self._adapters = state, adapters
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        self._state.mkdir(parents=True, exist_ok=True)
        log = self._state / "log.txt"
        ours = {"TINKER_SERVER_STATE": str(self._state), "TINKER_API_KEY": KEY, "PYTHON": sys.executable}
        self._process = subprocess.Popen(
            [ROOT / "scripts" / "tinker-server", "--port", str(self.port), "--max-adapters", str(self._adapters)],
            env=os.environ | ours,
            stdout=subprocess.PIPE,
            stderr=log.open("a"),
            text=True,
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("ready "):
                threading.Thread(target=self._process.stdout.read, daemon=True).start()
                return
        raise AssertionError(f"the server ended: {log.read_text()[-3000:]}")

    def kill(self) -> None:
        """kill -9; its engine process dies with it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """End it as its user would."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(timeout=300)
