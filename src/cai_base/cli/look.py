"""The commands that show runs: `report`, `compare` and `watch`."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from cai_base.cli.parser import Parser, count, nonempty_path, port, run_parser, take_changes
from cai_base.errors import UserError
from cai_base.paths import REPORT_HTML, REPORT_MARKDOWN, RESULTS, STYLE, SUITES
from cai_base.progress import Progress
from cai_base.text import command_on, for_terminal


def report(arguments: list[str]) -> int:
    """Rewrite a run's page and figures."""
    parser = run_parser("report", "Write a run's page and figures again.")
    parser.add_argument("--json", action="store_true", help="print results.json instead of the table")
    parser.add_argument("--open", action="store_true", help="open the page in this machine's browser")
    take_changes(parser)
    args = parser.parse_args(arguments)
    refuse_unfinished(args.run, args.accept_changed)
    show(args.run, as_json=args.json)
    if args.open:
        _open(args.run / REPORT_HTML)
    return 0


def _open(page: Path) -> None:
    """Open a page in the browser; where there is none, as on a server, say how to see it."""
    import webbrowser

    if not webbrowser.open(page.resolve().as_uri()):
        Progress().say(
            f"This machine has no browser; copy {page} to one that has (it is one file), or serve it from here with: "
            f"{command_on('watch', page.parent)}"
        )


def compare(arguments: list[str]) -> int:
    """Compare several runs."""
    parser = Parser(prog="cai-base compare", description="Compare finished runs with the first one.")
    parser.add_argument("runs", metavar="RUN", type=nonempty_path, nargs="+", help="the runs' directories")
    parser.add_argument(
        "--out", type=nonempty_path, default=None, metavar="FILE", help="also write a page, such as compare.html"
    )
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON instead of tables")
    args = parser.parse_args(arguments)
    from cai_base.store import check_new_file, refuse_no_run, to_json, write_atomic

    for directory in args.runs:
        refuse_no_run(directory)
    if args.out is not None:
        check_new_file(args.out, "--out")
    from cai_base.report.compare import html, render
    from cai_base.run.results.compare_runs import compare as compare_runs

    compared = compare_runs(args.runs)
    if args.out is not None:
        write_atomic(args.out, html(compared).encode())
    print(to_json(compared.dump()).decode() if args.json else render(compared), end="")
    if args.out is not None and not args.json:
        print(for_terminal(str(args.out)))
    return 0


def watch(arguments: list[str]) -> int:
    """Serve a page with the run's progress, until Ctrl-C."""
    parser = run_parser("watch", "Serve a page with a run's progress on this machine, during the run and afterwards.")
    parser.add_argument("--port", type=port, default=0, help="port on 127.0.0.1; by default a free one")
    parser.add_argument(
        "--chat", action="store_true", help="for a finished run: also serve a page to chat with its arms"
    )
    parser.add_argument("--seed", type=int, default=None, help="for --chat: the seed; by default the run's first")
    parser.add_argument("--threads", type=count, default=None, help="for --chat: CPU threads; by default the run's")
    args = parser.parse_args(arguments)
    if not args.chat and (args.seed, args.threads) != (None, None):
        raise UserError("--seed and --threads are for the chat; add --chat, or leave them out")
    from cai_base.integrations.watch_server import CHAT, WatchServer
    from cai_base.run.status import read_status

    read_status(args.run)  # raises if it is not a run
    progress = Progress()
    with WatchServer(args.run, args.port) as server:  # takes the port before models are loaded
        if args.chat:
            from cai_base.integrations.watch_chat import load_chat

            server.chat = load_chat(args.run, args.seed, args.threads, progress)
        print(server.address + (CHAT if args.chat else ""), flush=True)
        progress.say(
            f"Ctrl-C stops it. From another machine: ssh -L {server.server_port}:127.0.0.1:{server.server_port} HOST, "
            "then open the same address"
        )
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            progress.say("stopped; the run is not affected")
    return 0


def show(directory: Path, *, as_json: bool, at_end: bool = False) -> None:
    """Print the tables of a finished run, or `results.json`; then write its pages, and print where they are.

    Args:
        at_end: the run has just ended; a summary is printed instead of all tables.
    """
    if as_json:
        print((directory / RESULTS).read_text(encoding="utf-8"), end="", flush=True)
    else:
        from cai_base.report.table import next_commands, render, summary

        print(summary(directory) if at_end else render(directory), end="", flush=True)
    _update(directory)
    if not as_json:
        if at_end:
            print(f"\n{next_commands(directory)}", end="")
        for name in (RESULTS, REPORT_HTML, REPORT_MARKDOWN):
            print(for_terminal(str(directory / name)))


def _update(directory: Path) -> None:
    """Write the pages, and the logs for Inspect, unless no file has changed since they were written."""
    from cai_base.report.up_to_date import is_current, remember_written

    logs = inspect_is_installed() and _few_answers(directory)
    if is_current(directory, logs=logs):
        Progress().say(f"The report of {directory} is up to date")
    else:
        _write(directory, logs=logs)
        remember_written(directory, logs=logs)


MOST_LOGGED = 16 << 20
"""Bytes of the answers up to which `report` writes logs for Inspect, which take it a minute for each 4 MB."""


def _few_answers(directory: Path) -> bool:
    """Whether a run's answers are few enough to be logged at every report; says so if not."""
    size = sum(path.stat().st_size for path in directory.glob("seed-*/evaluation/**/*.jsonl"))
    if size > MOST_LOGGED:
        Progress().say(
            f"No logs for Inspect: {size / 1e6:,.0f} MB of answers would take it {size / 4e6:,.0f} minutes or more; "
            f"write them with: {command_on('inspect', directory)}"
        )
    return size <= MOST_LOGGED


def _write(directory: Path, *, logs: bool) -> None:
    Progress().say(f"Writing the report of {directory}")
    from cai_base.report import write

    write(directory)
    if logs:
        write_logs(directory)


def refuse_unfinished(directory: Path, accept: Sequence[str] = ()) -> None:
    """Raises UserError if the directory is not a run, the run has no results yet, it has results that nobody stored, a
    suite in it was asked of other weights, or a file of it or of its suites was changed that is not among those to
    `accept`, or a line of a judge's replies."""
    from cai_base.evaluation.judges.replies import check_replies
    from cai_base.run.identity import check_suite
    from cai_base.run.stored import check_finished, suite_folders
    from cai_base.settings.validation import stored_settings
    from cai_base.store import MANIFEST, Run

    accept_changes(directory, accept)
    Progress().say(f"Checking the files of {directory}")
    run = Run.open(directory)
    check_replies(directory)
    suite_folders(directory)
    for suite in sorted(directory.glob(f"{SUITES}/*/{MANIFEST}")):
        opened = Run.open(suite.parent)
        opened.vouched(RESULTS)
        check_suite(run, opened)
        check_replies(suite.parent)
    check_finished(run)
    run.vouched(RESULTS)
    run.vouched(STYLE, f"compute it again with {command_on('style', directory)}, or remove it")
    stored_settings(run)


def accept_changes(directory: Path, names: Sequence[str]) -> None:
    """Take changed files of a run as they are. Nothing is imported where there are none."""
    if names:
        from cai_base.run.accepted import accept_changed

        accept_changed(directory, names, Progress())


def write_logs(directory: Path) -> list[Path]:
    """Write a run's evaluations as logs for Inspect. Returns their paths."""
    Progress().say(f"Writing logs for Inspect; view them with: inspect view --log-dir {directory / 'inspect'}")
    from cai_base.integrations.inspect_logs import write

    return write(directory)


def inspect_is_installed() -> bool:
    """Whether Inspect can be imported."""
    return find_spec("inspect_ai") is not None
