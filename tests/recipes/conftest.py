"""Fixtures of the recipes."""

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def judge_url() -> Iterator[str]:
    """The endpoint of scripts/same-results on loopback: its grades are a function of the text."""
    loader = SourceFileLoader("same_results", str(Path(__file__).parents[2] / "scripts/same-results"))
    script = module_from_spec(spec_from_loader(loader.name, loader))  # type: ignore[arg-type]
    loader.exec_module(script)
    server = ThreadingHTTPServer(("127.0.0.1", 0), script.Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
