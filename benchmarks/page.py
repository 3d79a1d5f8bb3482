"""Size of a run's page with many items in its reader, and the time in which headless Chromium opens it.

    python benchmarks/page.py RUN [--items 10000]

The page is that of RUN with the reader's items repeated until there are so many. The time is Chromium's own, from the
beginning of the navigation until the page is loaded, its script has shown the first item, and it is laid out. Beside
it stand the seconds of CPU of `chromium --dump-dom` less those of an empty page, which hold on a busy machine too.
All are medians of several. It writes nothing but temporary files.
"""

import argparse
import base64
import gzip
import json
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Event, Thread

from cai_base.paths import REPORT_HTML
from cai_base.report.reader import PACKED

DATA = re.compile(r'<script id="reader-data" type="application/(json|gzip)">(.*?)</script>', re.DOTALL)
ELEMENT = '<script id="reader-data" type="application/{}">{}</script>'
CHROMIUM = (
    "chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --dump-dom"
).split()
POLICY = re.compile('<meta http-equiv="Content-Security-Policy"[^>]*>')
PROBE = """<img src="ADDRESS/wait" alt=""><script>addEventListener("DOMContentLoaded", async () => {
  const panel = document.getElementById("reader-panel");
  while (panel && panel.hidden) await new Promise((done) => setTimeout(done, 1)); // it unpacks its texts
  document.body.getBoundingClientRect(); // lays the page out
  document.body.dataset.opened = performance.now();
  fetch("ADDRESS/done", { mode: "no-cors" });
})</script></body>"""
"""Chromium writes the page's elements once it is loaded, and the picture is not before the texts are shown."""
OPENED = re.compile(r'data-opened="([0-9.]+)"')
TIMES = 5
"""How often each page is opened."""


def main() -> int:
    """Print size and time."""
    parser = argparse.ArgumentParser(prog="benchmarks/page.py", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--items", type=int, default=10_000)
    args = parser.parse_args()
    page = (args.run / REPORT_HTML).read_text("utf-8")
    with TemporaryDirectory() as folder, gate() as address:
        probe = PROBE.replace("ADDRESS", address)
        empty, many = Path(folder) / "empty.html", Path(folder) / "many.html"
        empty.write_text(f"<!doctype html><title>empty</title><body>{probe}", "utf-8")
        many.write_text(POLICY.sub("", repeated(page, args.items)).replace("</body>", probe), "utf-8")
        rounds = [[open_page(one) for one in (empty, many)] for _ in range(TIMES)]
        size = many.stat().st_size
    (_, before), (opened, after) = (
        tuple(median(times[n] for times in column) for n in (0, 1)) for column in zip(*rounds, strict=True)
    )
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    print(
        f"{args.items:,} items: {size / 1e6:.1f} MB; medians of {TIMES}, on a machine with a load of {load:.1f} a core"
    )
    print(f"  opened in {opened:.2f} s, by Chromium's clock")
    print(f"  {after - before:.2f} s of CPU ({after:.2f} less {before:.2f} of Chromium with an empty page)")
    return 0


def repeated(page: str, count: int) -> str:
    """The page with the items of its reader repeated until there are `count`, compressed as in a large run."""
    match = DATA.search(page)
    if match is None:
        sys.exit("the page has no reader: write it again with cai-base report RUN")
    form, stored = match.groups()
    data = json.loads(stored if form == "json" else gzip.decompress(base64.b64decode(stored)))
    items = data["items"]
    data["items"] = [items[n % len(items)] | {"id": f"{items[n % len(items)]['id']}-{n}"} for n in range(count)]
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c").encode()
    if len(text) > PACKED:
        element = ELEMENT.format("gzip", base64.b64encode(zlib.compress(text, 6, wbits=31)).decode())
    else:
        element = ELEMENT.format("json", text.decode())
    return page[: match.start()] + element + page[match.end() :]


@contextmanager
def gate() -> Iterator[str]:
    """The address of a server whose `/wait` answers once `/done` was asked for, for one page at a time."""
    is_done = Event()

    class Gate(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/wait":
                is_done.wait(60)
                is_done.clear()
            else:
                is_done.set()
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Gate)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def open_page(page: Path) -> tuple[float, float]:
    """Seconds until Chromium has opened the page, and its seconds of CPU until it has written the page's elements."""
    with TemporaryDirectory() as profile:
        before = os.times()
        command = [*CHROMIUM, f"--user-data-dir={profile}", page.as_uri()]
        shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
        after = os.times()
    opened = OPENED.search(shown)
    assert opened, "the page did not load"
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return float(opened.group(1)) / 1000, cpu


if __name__ == "__main__":
    sys.exit(main())
