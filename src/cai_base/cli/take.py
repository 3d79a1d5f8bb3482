"""The commands that export, serve or check a run: `export`, `serve` and `verify`."""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from cai_base.cli.parser import count, names, nonempty_path, run_parser
from cai_base.errors import UserError, install
from cai_base.paths import RESULTS
from cai_base.progress import Progress
from cai_base.text import for_terminal


def verify(arguments: list[str]) -> int:
    """Check a finished run without a model."""
    parser = run_parser(
        "verify",
        "Check a finished run without a model: every file's hash, every verdict of a judge that needs no model, and "
        "every figure of results.json from the stored answers. Stops at the first difference, with exit code 2.",
    )
    parser.add_argument("--json", action="store_true", help="print what was checked as JSON")
    args = parser.parse_args(arguments)
    Progress().say(f"Checking the files of {args.run}")
    from cai_base.run.verify import verify as check

    done = check(args.run)
    if args.json:
        print(json.dumps(done.dump(), indent=2))
        _refuse_absent(args.run, done.absent)
        return 0
    run = for_terminal(str(args.run))
    if done.absent:
        lacks = f"the results lack {len(done.absent)} of the figures that this version computes, named below"
        print(f"{run}: what could be compared agrees, but {lacks}")
    else:
        print(f"{run}: everything that was checked agrees")
    print(f"  {done.files} files have the hash in the manifest")
    if done.verdicts:
        print(f"  {done.verdicts} verdicts equal the judge's recomputed verdicts")
    rounded = f"; {done.rounded} of them differ only by rounding" if done.rounded else ""
    figures = f"{done.figures} figures of the results, suites and styles"
    print(f"  {figures} equal those recomputed from the stored answers{rounded}")
    for name, (then, here) in done.versions.items():
        print(f"  {name} was {then} and is {here} here")
    print("Not checked:")
    for sentence in done.not_checked:
        print(f"  {for_terminal(sentence)}")
    _refuse_absent(args.run, done.absent)
    return 0


def _refuse_absent(run: Path, absent: Sequence[str]) -> None:
    """Raises UserError if results lack figures: an older version may not have stored them, or they were deleted."""
    if absent:
        more = f", and {len(absent) - 1} more," if len(absent) > 1 else ""
        raise UserError(
            f"{run / RESULTS}: {absent[0]}{more} is absent, but this version computes it from the stored answers; if "
            "another version made this run and did not store it, verify the run with that version"
        )


def export(arguments: list[str]) -> int:
    """Export an arm in a format that other programs load."""
    parser = run_parser(
        "export",
        "Export an arm of a finished run in a format that other programs load, with tokenizer, chat template (the "
        "few-shot layout), generation settings and a model card. The default is a PEFT adapter.",
    )
    parser.add_argument("--arm", default=None, help="the arm; cai by default")
    parser.add_argument("--seed", type=int, default=None, help="the seed; the first by default")
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--merged", action="store_true", help="a Hugging Face folder with the adapter merged into the base model"
    )
    form.add_argument("--gguf", action="store_true", help="one file for llama.cpp, if it supports the architecture")
    form.add_argument(
        "--preferences",
        action="store_true",
        help="the arm's preference pairs of all seeds, as a folder for `datasets` and TRL, with a data card",
    )
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="dtype of merged weights; auto (default): float32 up to a billion parameters, else the base model's",
    )
    parser.add_argument("--out", type=nonempty_path, required=True, help="a new folder")
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")
    args = parser.parse_args(arguments)
    forms = [name for name in ("merged", "gguf", "preferences") if getattr(args, name)]
    name = forms[0] if forms else "adapter"
    if args.dtype != "auto" and name not in ("merged", "gguf"):
        raise UserError(f"--dtype {args.dtype}: applies only to --merged and --gguf; leave it out")
    if args.seed is not None and name == "preferences":
        raise UserError(f"--seed {args.seed}: --preferences writes the pairs of every seed; leave it out")
    progress = Progress()
    from cai_base.arms import FULL
    from cai_base.integrations.export.arm_export import ExportRequest
    from cai_base.integrations.export.arm_export import export as write

    notes = write(ExportRequest(args.run, args.arm or FULL, args.seed, name, args.dtype, args.out), progress)
    if args.json:
        files = sorted(path.relative_to(args.out).as_posix() for path in args.out.rglob("*") if path.is_file())
        print(json.dumps({"form": name, "out": str(args.out), "files": files, "notes": notes}, indent=2))
        return 0
    for note in notes:
        progress.say(for_terminal(note))
    print(for_terminal(str(args.out)))
    return 0


def serve(arguments: list[str]) -> int:
    """Serve a run's models on loopback."""
    parser = run_parser(
        "serve",
        "Serve every arm of a finished run as a model of an OpenAI-compatible server, on this machine only: "
        "/v1/models, /v1/completions and /v1/chat/completions. Base-derived arms use the few-shot layout.",
    )
    parser.add_argument("--arms", type=names, default=None, help="comma-separated; all by default")
    parser.add_argument("--port", type=int, default=8017, help="8017 by default; 0 for a free one")
    parser.add_argument("--threads", type=count, default=None, help="CPU threads; the run's by default")
    parser.add_argument(
        "--with-key", action="store_true", help="requests need an API key, which is random and shown at the start"
    )
    args = parser.parse_args(arguments)
    if not 0 <= args.port < 65536:
        raise UserError(f"--port {args.port}: must be from 0 to 65535")
    absent = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if absent:
        raise UserError(f"serve: needs {' and '.join(absent)}, not installed here; {install('serve')}")
    from cai_base.integrations.server.models import run_models
    from cai_base.integrations.server.run_server import listen
    from cai_base.integrations.server.run_server import serve as run

    progress = Progress()
    with listen(args.port) as listening:
        run(run_models(args.run, args.arms, args.threads, progress), listening, progress, with_key=args.with_key)
    return 0
