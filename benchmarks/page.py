"""Size of a run's page with many items in its reader, and the time in which headless Chromium opens it.

    python benchmarks/page.py RUN [--items 10000]

The page is that of RUN with the reader's items repeated until there are so many. The time is that of `chromium
--dump-dom` less that of an empty page, each the median of several; seconds of CPU hold on a busy machine too. It writes
nothing but temporary files.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from cai_base.paths import REPORT_HTML

DATA = re.compile(r'(id="reader-data"[^>]*>)(.*?)(</script>)', re.DOTALL)
CHROMIUM = (
    "chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --dump-dom"
).split()
TIMES = 5
"""How often each page is opened."""


def main() -> int:
    """Print size and time."""
    parser = argparse.ArgumentParser(prog="benchmarks/page.py", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--items", type=int, default=10_000)
    args = parser.parse_args()
    page = (args.run / REPORT_HTML).read_text("utf-8")
    with TemporaryDirectory() as folder:
        empty, many = Path(folder) / "empty.html", Path(folder) / "many.html"
        empty.write_text("<!doctype html><title>empty</title>", "utf-8")
        many.write_text(repeated(page, args.items), "utf-8")
        rounds = [[open_page(one) for one in (empty, many)] for _ in range(TIMES)]
        size = many.stat().st_size
    print(f"{args.items:,} items: {size / 1e6:.1f} MB, opened in")
    for n, what in enumerate(("s", "s of CPU")):
        before, after = (median(times[n] for times in column) for column in zip(*rounds, strict=True))
        print(f"  {after - before:.2f} {what} ({after:.2f} less {before:.2f} of Chromium alone; medians of {TIMES})")
    return 0


def repeated(page: str, count: int) -> str:
    """The page with the items of its reader repeated until there are `count`."""
    match = DATA.search(page)
    if match is None:
        sys.exit("the page has no reader: write it again with cai-base report RUN")
    data = json.loads(match.group(2))
    items = data["items"]
    data["items"] = [items[n % len(items)] | {"id": f"{items[n % len(items)]['id']}-{n}"} for n in range(count)]
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return page[: match.start(2)] + text + page[match.end(2) :]


def open_page(page: Path) -> tuple[float, float]:
    """Seconds, and seconds of CPU, in which Chromium loads the page, runs its script and writes its elements."""
    with TemporaryDirectory() as profile:
        start, before = time.monotonic(), os.times()
        subprocess.run(
            [*CHROMIUM, f"--user-data-dir={profile}", page.as_uri()], check=True, capture_output=True, timeout=120
        )
        after = os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        return time.monotonic() - start, cpu


if __name__ == "__main__":
    sys.exit(main())
