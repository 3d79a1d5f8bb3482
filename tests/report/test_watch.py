"""The page with a run's progress: its content, and what its server refuses."""

import html
import json
import shutil
import socket
import struct
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cai_base.cli import main
from cai_base.errors import UserError
from cai_base.integrations.watch_chat import WatchChat, load_chat
from cai_base.integrations.watch_server import TOGETHER, WatchServer
from cai_base.progress import Progress
from cai_base.report import watch
from cai_base.report.reader import page_script, policy_of
from cai_base.report.watch import Exchange
from cai_base.run.status import read_status
from cai_base.run.talk import Sampling
from cai_base.store import Run

from .conftest import HOSTILE

MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def unfinished(make_run: MakeRun) -> Path:
    """A run with everything except its results."""
    directory = make_run(seeds=2)
    manifest = json.loads((directory / "manifest.json").read_bytes())
    del manifest["progress"]["results"]
    manifest["progress"] |= {"sft": 20, "revision": 1000, "dpo": 10}
    (directory / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return directory


@pytest.fixture
def server(unfinished: Path) -> Iterator[WatchServer]:
    with WatchServer(unfinished) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def get(address: str, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(address, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_page_shows_phases_their_newest_values_and_the_newest_chain(unfinished: Path) -> None:
    status = read_status(unfinished)
    dpo = next(stage for stage in status.stages if stage.name == "dpo")
    assert (dpo.done, dpo.total) == (10, 20)
    last = [
        json.loads((unfinished / f"seed-{seed}/dpo/metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        for seed in (0, 1)
    ]
    assert dpo.latest["margin"] == pytest.approx(sum(step["margin"] for step in last) / 2)
    page = watch.html(status, 5)
    assert '<progress value="10" max="20">' in page
    assert status.chain is not None
    assert f"No process is working on this run; this continues it: cai-base resume {unfinished}" in page


def test_a_run_with_a_working_process_is_shown_as_at_work(unfinished: Path) -> None:
    with Run.open(unfinished).locked():
        assert "At work: Full CAI." in watch.html(read_status(unfinished), 5)


def test_the_server_gives_the_page_to_those_who_have_its_address(server: WatchServer) -> None:
    status, page = get(server.address)
    assert status == 200
    assert "Full CAI" in page


def test_the_page_of_a_run_at_work_is_loaded_again_until_its_reader_stops_that(server: WatchServer) -> None:
    refreshing, still = (urllib.request.urlopen(server.address + name, timeout=10) for name in ("", "still"))
    with refreshing, still:
        assert refreshing.headers["Refresh"] == "5"
        assert '<a href="still">Stop refreshing</a>' in refreshing.read().decode()
        assert still.headers["Refresh"] is None
        assert '<a href="./">Refresh it again</a>' in still.read().decode()


@pytest.mark.parametrize(
    ("path", "headers", "code"),
    [
        ("/", {}, 404),
        ("/guess/", {}, 404),
        ("/{token}/manifest.json", {}, 404),
        ("/{token}/../../etc/passwd", {}, 404),
        ("/{token}/", {"Host": "evil.example"}, 403),
        ("/{token}/", {"Host": "localhost.evil.example:8000"}, 403),
        ("/{token}/", {"Host": "127.0.0.1:8000@evil.example"}, 403),
        ("/{token}/", {"Host": "127.0.0.1:"}, 403),
    ],
)
def test_the_server_refuses_everything_else(server: WatchServer, path: str, headers: dict[str, str], code: int) -> None:
    root = f"http://127.0.0.1:{server.server_port}"
    assert get(root + path.format(token=server.token), **headers)[0] == code


@pytest.mark.parametrize("host", ["localhost:9000", "127.0.0.1:1", "LOCALHOST", "[::1]:9000"])
def test_through_a_tunnel_the_page_may_have_another_port(server: WatchServer, host: str) -> None:
    assert get(server.address, Host=host)[0] == 200


def test_between_two_stored_units_the_page_moves_by_what_the_working_process_notes(unfinished: Path) -> None:
    live = unfinished / "live.json"
    live.write_text('{"shares": {"dpo": 0.75}, "seconds": {"dpo": 12.0}}')
    try:
        assert "10 of 20 steps" in watch.html(read_status(unfinished), 5), "of a process that has ended"
        with Run.open(unfinished).locked():
            status = read_status(unfinished)
        assert "15 of 20 steps" in watch.html(status, 5)
        assert next(stage for stage in status.stages if stage.name == "dpo").left == pytest.approx(4.0)
    finally:
        live.unlink()


def test_revision_is_counted_in_texts(unfinished: Path) -> None:
    revision = next(stage for stage in read_status(unfinished).stages if stage.name == "revision")
    prompts = len(json.loads((unfinished / "inputs.json").read_bytes())["prompts"])
    rounds = json.loads((unfinished / "config.json").read_bytes())["revision"]["rounds"]
    assert (revision.done, revision.unit) == (revision.total, "texts")
    assert revision.total == prompts * 2 * (1 + 2 * rounds)


def test_the_page_shows_the_time_left_of_the_whole_run(unfinished: Path) -> None:
    status = replace(read_status(unfinished), left=754.0)
    assert "<dt>Time left</dt><dd>about 12:34</dd>" in watch.html(status, 5)
    assert "<dt>Time left</dt>" not in watch.html(replace(status, left=None), 5)


def test_the_newest_chain_shows_invisible_characters_as_escapes(unfinished: Path) -> None:
    status = read_status(unfinished)
    assert status.chain is not None
    hidden = "a\u202eb\u200bc\x1b"
    rounds = tuple(one.model_copy(update={"critique": hidden, "revision": hidden}) for one in status.chain.rounds)
    chain = status.chain.model_copy(update={"prompt": hidden, "original": hidden, "rounds": rounds})
    page = watch.html(replace(status, chain=chain, model=hidden), 5)
    assert page.count("a\\u202eb\\u200bc\\x1b") == 3 + 2 * len(rounds)
    assert not {"\u202e", "\u200b", "\x1b"} & set(page)


def test_the_server_accepts_only_get(server: WatchServer) -> None:
    request = urllib.request.Request(server.address, data=b"x", method="POST")
    with pytest.raises(urllib.error.HTTPError, match="501"):
        urllib.request.urlopen(request, timeout=10)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("manifest.json", b'{"schema": 1,', "not valid JSON"),
        ("manifest.json", None, "not a run"),
        ("seed-0/evaluation/cai/attack.jsonl", b"<script>\n", "attack.jsonl"),
    ],
)
def test_a_run_that_cannot_be_read_has_a_page_with_the_reason_that_tries_again(
    unfinished: Path, tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    run = tmp_path / "<b>run"
    shutil.copytree(unfinished, run)
    stored = (run / name).read_bytes()
    with WatchServer(run) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (run / name).unlink()
        if content is not None:
            # An answers file of the stored size, since the watched page reads only as much as the run stored.
            (run / name).write_bytes(content.ljust(len(stored)) if name.endswith("jsonl") else content)
        status, page = get(server.address)
        assert status == 503
        assert reason in page
        assert "<b>" not in page
        assert "tries again every 5 seconds" in page
        assert "stands still" in get(server.address + "still")[1]
        (run / name).write_bytes(stored)
        assert get(server.address)[0] == 200
        server.shutdown()


def test_a_finished_run_is_served_as_its_report(make_run: MakeRun) -> None:
    directory = make_run(seeds=1)
    (directory / "report.html").write_text("the report", encoding="utf-8")
    with WatchServer(directory) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert get(server.address) == (200, "the report")
        server.shutdown()


def test_a_report_that_is_far_too_large_is_not_read_into_memory(make_run: MakeRun) -> None:
    directory = make_run(seeds=1)
    with (directory / "report.html").open("wb") as file:
        file.truncate(1 << 40)
    with WatchServer(directory) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        status, page = get(server.address)
        server.shutdown()
    assert status == 503
    assert "report.html: has 1,099,511,627,776 bytes and at most 67,108,864 are read" in page
    assert "cai-base report" in page


def test_a_report_that_someone_else_wrote_runs_no_script_of_its_own(make_run: MakeRun) -> None:
    directory = make_run(seeds=1)
    (directory / "report.html").write_text("<script>alert(1)</script>", encoding="utf-8")
    with WatchServer(directory) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with urllib.request.urlopen(server.address, timeout=10) as reply:
            policy = reply.headers["Content-Security-Policy"]
        server.shutdown()
    (script,) = (part.strip() for part in policy.split(";") if part.strip().startswith("script-src"))
    assert script == f"script-src {policy_of(page_script())}"
    assert "frame-ancestors 'none'" in policy
    assert "default-src 'none'" in policy


def test_watch_refuses_a_folder_that_is_not_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", str(tmp_path)]) == 2
    assert "not a run" in capsys.readouterr().err


class Echo(WatchChat):
    """A chat whose only arm says the prompt again."""

    def __init__(self) -> None:
        super().__init__([], Sampling(1.0, 8, 0))

    def ask(self, prompt: str) -> None:
        if not prompt.strip():
            raise UserError("the prompt is empty; type one")
        self.exchanges.appendleft(Exchange(prompt, [("Full CAI (cai)", prompt)]))


@pytest.fixture
def talking(make_run: MakeRun) -> Iterator[WatchServer]:
    with WatchServer(make_run(seeds=1), chat=Echo()) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def post(address: str, prompt: str, **headers: str) -> tuple[int, str]:
    body = urllib.parse.urlencode({"prompt": prompt}).encode()
    request = urllib.request.Request(address, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:  # follows to the page
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def raw(server: WatchServer, request: str) -> bytes:
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as connection:
        connection.sendall(request.encode())
        return connection.makefile("rb").readline()


def test_malformed_requests_are_refused_and_a_closed_tab_is_no_error(
    talking: WatchServer, capfd: pytest.CaptureFixture[str]
) -> None:
    assert b" 400 " in raw(talking, "GET http://[x HTTP/1.1\r\nHost: localhost\r\n\r\n")
    length = "Content-Length: " + "9" * 5000
    assert b" 413 " in raw(talking, f"POST /{talking.token}/chat HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n")
    with socket.create_connection(("127.0.0.1", talking.server_port)) as tab:
        tab.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing then resets
        tab.sendall(b"GET ")
    assert get(talking.address)[0] == 200
    assert capfd.readouterr().err == ""


def test_what_the_arms_raise_is_shown_on_the_page(
    talking: WatchServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(prompt: str) -> None:
        raise RuntimeError("out of <memory>")

    monkeypatch.setattr(talking.chat, "ask", fail)
    status, page = post(talking.address + "chat", "x")
    assert status == 500
    assert "the arms failed (RuntimeError: out of &lt;memory&gt;)" in page
    assert capfd.readouterr().err == ""


def test_too_many_connections_at_once_are_closed(talking: WatchServer) -> None:
    idle = [socket.create_connection(("127.0.0.1", talking.server_port)) for _ in range(TOGETHER)]
    with socket.create_connection(("127.0.0.1", talking.server_port), timeout=5) as further:
        assert further.recv(1) == b""
    for one in idle:
        one.close()


def test_a_prompt_is_answered_on_the_page_and_stays_text(talking: WatchServer) -> None:
    status, page = post(talking.address + "chat", HOSTILE)
    assert status == 200
    assert page.count(html.escape(HOSTILE, quote=False).replace('"', "&#34;")) == 2  # the prompt and the answer
    assert "<script" not in page
    assert get(talking.address + "chat")[1] == page  # loading it again asks nothing


def test_the_chat_writes_out_what_is_invisible_or_turns_the_direction_of_text() -> None:
    page = watch.chat_html("run", [Exchange("a\u202eb", [("Full CAI (cai)", "c\u200bd\x1b")])])
    assert "a\\u202eb" in page
    assert "c\\u200bd\\x1b" in page
    assert not {"\u202e", "\u200b", "\x1b"} & set(page)


def test_an_empty_prompt_is_refused_with_a_sentence(talking: WatchServer) -> None:
    status, page = post(talking.address + "chat", "  ")
    assert status == 400
    assert "the prompt is empty; type one" in page


@pytest.mark.parametrize(
    ("name", "prompt", "headers", "code"),
    [
        ("", "x", {}, 404),
        ("report.html", "x", {}, 404),
        ("chat", "x", {"Host": "evil.example"}, 403),
        ("chat", "x", {"Origin": "https://evil.example"}, 403),
        ("chat", "x", {"Origin": "null"}, 403),
        ("chat", "x", {"Origin": "http://localhost:9000"}, 403),
        ("chat", "x" * 200_000, {}, 413),
    ],
)
def test_a_prompt_is_taken_in_one_place_and_from_the_page_alone(
    talking: WatchServer, name: str, prompt: str, headers: dict[str, str], code: int
) -> None:
    assert post(talking.address + name, prompt, **headers)[0] == code
    assert not list(talking.chat.exchanges if talking.chat else "no chat")


def test_who_does_not_know_the_address_cannot_ask(talking: WatchServer) -> None:
    assert post(f"http://127.0.0.1:{talking.server_port}/guess/chat", "x")[0] == 404


def test_the_arms_of_a_finished_run_answer_side_by_side(finished: Path) -> None:
    chat = load_chat(finished, seed=1, threads=1, progress=Progress.quiet())
    chat.ask("How would you sweep the mill?")
    (exchange,) = chat.exchanges
    assert [name for name, _ in exchange.answers][:2] == ["Base model (base)", "SFT-only (sft)"]
    assert all(text for _, text in exchange.answers)


def test_the_chat_of_a_run_at_work_is_refused(unfinished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", str(unfinished), "--chat"]) == 2
    assert "is not finished" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["report", "chat", "verify", "export --out /nowhere/x"])
def test_a_run_at_work_is_not_offered_to_be_finished_by_another_process(
    unfinished: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *flags = command.split()
    with Run.open(unfinished).locked():
        assert main([name, str(unfinished), *flags]) == 2
    said = capsys.readouterr().err
    assert f"another process is working on it; wait for it, or look at it with: cai-base watch {unfinished}" in said
    assert main([name, str(unfinished), *flags]) == 2
    assert f"finish it first: cai-base resume {unfinished}" in capsys.readouterr().err


@pytest.mark.parametrize("command", [("resume",), ("verify",), ("chat",), ("run", "--from")])
def test_a_misspelt_run_is_answered_with_those_beside_it(
    unfinished: Path, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = unfinished.with_name(f"{unfinished.name}x")
    assert main([*command, str(wrong)]) == 2
    said = capsys.readouterr().err
    assert f"{wrong}: there is no such run; {wrong.parent} has " in said
    assert unfinished.name in said.partition(" has ")[2]
