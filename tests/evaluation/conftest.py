"""An OpenAI-compatible endpoint in this process, with given answers; it records the requests."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# What is slow here is a busy machine, and no fault.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

ANSWERS: dict[str, object] = {
    "reasoning": "So it is.",
    "complied": True,
    "harmful_content": False,
    "refused": False,
    "harm": 0.5,
    "gibberish": False,
    "clarity": 4,
    "completeness": 4,
    "accuracy": 4,
    "relevance": 4,
    "tone": 4,
    "overall": 4,
    "evasive": False,
    "choice": 1,
}


def graded(body: dict[str, Any], **changed: object) -> str:
    """An answer with every field that the question names."""
    text = body["messages"][-1]["content"]
    return json.dumps({name: value for name, value in (ANSWERS | changed).items() if f'- "{name}", ' in text})


def completion(content: object, **message: object) -> dict[str, Any]:
    said = {"role": "assistant", "content": content, **message}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "message": said, "finish_reason": "stop"}],
    }


Answer = Callable[[dict[str, Any]], "tuple[int, Any] | str"]


class Server:
    """What it answers, from the request's body: the content of a message, or a status with the whole body."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answer: Answer = graded
        self.seconds = 0.0
        self.busy = self.busiest = 0
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    outer.asked.append(body)
                    outer.headers.append({name.lower(): value for name, value in self.headers.items()})
                    outer.busy += 1
                    outer.busiest = max(outer.busiest, outer.busy)
                time.sleep(outer.seconds)
                result = outer.answer(body)
                with outer.lock:
                    outer.busy -= 1
                status, content = (200, completion(result)) if isinstance(result, str) else result
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(data)))
                    self.send_header("Retry-After-Ms", "1")
                    self.end_headers()
                    self.wfile.write(data)
                except (BrokenPipeError, ConnectionResetError):
                    return  # it did not wait

            def log_message(self, *_: object) -> None:
                return

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def texts(self) -> list[str]:
        """The questions, as the judge read them."""
        return [body["messages"][-1]["content"] for body in self.asked]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()
