"""Serves a run's page on this machine, at an address with a secret token.

It accepts only GET, and POST of a prompt to its chat if it has one.
"""

import re
import secrets
import sys
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cai_base.errors import UserError
from cai_base.integrations.watch_chat import WatchChat
from cai_base.paths import REPORT_HTML
from cai_base.reading import read_bytes
from cai_base.report.reader import page_script, policy_of
from cai_base.report.watch import chat_html, html, unreadable_html
from cai_base.run.status import read_status
from cai_base.text import one_line

EVERY = 5
"""Seconds between two reloads by the browser while the run is not finished."""

LARGEST_PAGE = 1 << 26
"""The most bytes of a finished run's page; this program writes at most a third of it."""
LARGEST = 1 << 17
"""The most bytes of a prompt that is sent, as a form encodes it."""
DIGITS = 9
"""The most digits of a length."""
TOGETHER = 32
"""The most connections at a time, each with a thread; further ones are closed at once."""
LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
"""The `Host` of a request that is answered: a name of this machine. Through a tunnel its port may be another."""
CHAT = "chat"
"""The name of the chat under the address."""
STILL = "still"
"""The name of the page that is not loaded again by itself: a reader must be able to stop that (WCAG 2.2.1, 2.2.2)."""

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
HEADERS: Mapping[str, str] = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class WatchServer(ThreadingHTTPServer):
    """The server of one run's page, on 127.0.0.1.

    Args:
        directory: the run's directory.
        port: 0 for a free one.
        chat: the chat with the run's arms; None without one.
    """

    daemon_threads = True
    request_queue_size = TOGETHER

    def __init__(self, directory: Path, port: int = 0, chat: WatchChat | None = None) -> None:
        self.directory, self.chat = directory, chat
        self.token = secrets.token_urlsafe(16)
        self._places = threading.BoundedSemaphore(TOGETHER)
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise UserError(
                f"--port {port}: cannot be opened ({error.strerror}); give another port, or leave it out"
            ) from error

    @property
    def address(self) -> str:
        """The address of the page."""
        return f"http://127.0.0.1:{self.server_port}/{self.token}/"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own, or close the connection if there are too many."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread could be started
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and make the place free."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say in a sentence that a request failed; a browser that has closed the connection is no failure."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):
            print(f"a request of the page failed: {type(error).__name__}: {one_line(str(error))}", file=sys.stderr)


class _Handler(BaseHTTPRequestHandler):
    server: WatchServer
    timeout = 10

    def do_GET(self) -> None:
        name = self._name()
        if name == CHAT and self.server.chat is not None:
            self._reply(chat_html(self._run_name, self.server.chat.newest()).encode(), self._chat_headers())
        elif name in ("", STILL, REPORT_HTML):
            self._send_page(name)
        elif name is not None:
            self.send_error(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        chat = self.server.chat
        if chat is None:
            self.send_error(HTTPStatus.NOT_IMPLEMENTED, "Unsupported method ('POST')")
            return
        name = self._name()
        if name is None:
            return
        if name != CHAT:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        origin = self.headers.get("Origin")
        if origin is not None and origin != f"http://{self.headers['Host']}":
            self.send_error(HTTPStatus.FORBIDDEN, "unknown origin")
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or len(length) > DIGITS or int(length) > LARGEST:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {LARGEST} bytes")
            return
        form = parse_qs(self.rfile.read(int(length)).decode("utf-8", "replace"))
        prompt = form.get("prompt", [""])[0].replace("\r\n", "\n")
        try:
            chat.ask(prompt)
        except Exception as error:  # whatever an engine raises is shown where the answer would stand
            expected = isinstance(error, UserError)
            words = str(error) if expected else f"the arms failed ({type(error).__name__}: {one_line(str(error))})"
            page = chat_html(self._run_name, chat.newest(), words, prompt)
            status = HTTPStatus.BAD_REQUEST if expected else HTTPStatus.INTERNAL_SERVER_ERROR
            self._reply(page.encode(), self._chat_headers(), status)
            return
        self.send_response(HTTPStatus.SEE_OTHER)  # so that loading the page again asks nothing again
        self.send_header("Location", CHAT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    @property
    def _run_name(self) -> str:
        return self.server.directory.resolve().name

    def _name(self) -> str | None:
        """What is asked for under the address; None if the request was refused."""
        if not LOOPBACK.fullmatch(self.headers.get("Host", "")):
            # Against DNS rebinding: another site's host name could resolve to this machine.
            self.send_error(HTTPStatus.FORBIDDEN, "unknown host")
            return None
        try:
            path = urlsplit(self.path).path
        except ValueError:  # such as `http://[`
            self.send_error(HTTPStatus.BAD_REQUEST)
            return None
        token, _, name = path.removeprefix("/").partition("/")
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return name

    def _chat_headers(self) -> dict[str, str]:
        # With "no-referrer" a browser would not say where a form comes from.
        return {**HEADERS, "Referrer-Policy": "same-origin"}

    def _send_page(self, name: str) -> None:
        directory, headers = self.server.directory, dict(HEADERS)
        every = 0 if name == STILL else EVERY
        again = {"Refresh": str(every)} if every else {}
        written, report = None, directory / REPORT_HTML
        try:
            status = read_status(directory)
            if status.finished and report.is_file():
                written = read_bytes(report, "the run's page, written by cai-base report", LARGEST_PAGE)
        except UserError as error:
            page = unreadable_html(self._run_name, str(error), every)
            self._reply(page.encode(), headers | again, HTTPStatus.SERVICE_UNAVAILABLE)
            return
        if written is not None:
            body = written
            # Whoever wrote the file: no script of it runs but the one that this version writes.
            headers["Content-Security-Policy"] = f"{POLICY}; script-src {policy_of(page_script())}"
            if self.server.chat is not None:
                body = body.replace(b"</nav>", b'<a href="chat">Talk to it</a></nav>', 1)
        elif name == REPORT_HTML:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        else:
            body = html(status, every).encode()
            headers |= {} if status.finished else again
        self._reply(body, headers)

    def _reply(self, body: bytes, headers: Mapping[str, str], status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        for header, value in headers.items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing, because the address contains the token."""
