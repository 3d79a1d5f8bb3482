"""Serves the page of a run on this machine: nothing but GET, under an address that cannot be guessed."""

import secrets
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from cai_base.errors import UserError
from cai_base.paths import REPORT_HTML
from cai_base.report.watch import html
from cai_base.run.status import read_status

EVERY = 5
"""Seconds between two looks of the browser at a run that is at work."""

HEADERS: Mapping[str, str] = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class WatchServer(ThreadingHTTPServer):
    """The server of one run's page, on 127.0.0.1.

    Args:
        directory: the run's.
        port: 0 takes a free one.
    """

    daemon_threads = True

    def __init__(self, directory: Path, port: int = 0) -> None:
        self.directory = directory
        self.token = secrets.token_urlsafe(16)
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise UserError(f"--port {port}: cannot be opened ({error.strerror}); give another, or none") from error

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.server_port}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    server: WatchServer
    timeout = 10

    def do_GET(self) -> None:
        if self.headers.get("Host", "") not in (
            f"{name}:{self.server.server_port}" for name in ("127.0.0.1", "localhost")
        ):
            # A page elsewhere could have had its name resolved to this machine.
            self.send_error(HTTPStatus.FORBIDDEN, "unknown host")
            return
        path = urlsplit(self.path).path
        token, _, name = path.removeprefix("/").partition("/")
        if not secrets.compare_digest(token.encode(), self.server.token.encode()) or name not in ("", REPORT_HTML):
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self._send(name)

    def _send(self, name: str) -> None:
        directory, headers = self.server.directory, dict(HEADERS)
        status = read_status(directory)
        if status.finished and (directory / REPORT_HTML).is_file():
            body = (directory / REPORT_HTML).read_bytes()
            del headers["Content-Security-Policy"]  # the report has its own, with the hash of its reader
        elif name:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        else:
            body = html(status, EVERY).encode()
        self.send_response(HTTPStatus.OK)
        for header, value in headers.items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the address holds the token."""
