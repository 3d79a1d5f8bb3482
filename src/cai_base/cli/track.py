"""The command that sends a run's curves to trackers: `track`."""

from cai_base.cli.parser import names, run_parser
from cai_base.errors import UserError
from cai_base.progress import Progress
from cai_base.text import counted


def track(arguments: list[str]) -> int:
    """Send missing points to the run's trackers, or to the named ones."""
    parser = run_parser("track", "Send a run's curves, or the missing points, to its trackers or to a new tracker.")
    parser.add_argument(
        "--to", metavar="NAMES", type=names, default=(), help="comma-separated trackers: wandb, trackio, tensorboard"
    )
    args = parser.parse_args(arguments)
    from cai_base.integrations.tracking.send import Sender, begin, trackers_of
    from cai_base.report import write
    from cai_base.store import Run

    progress = Progress()
    progress.say(f"Checking the files of {args.run}")
    has_results = bool(Run.open(args.run).progress("results"))
    begin(args.run, args.to, "--to")
    trackers = trackers_of(args.run)
    if not trackers:
        raise UserError(f"{args.run}: has no tracker; name one, such as --to tensorboard")
    if has_results:  # no hash vouches for the page that lies there, and it is sent too
        write(args.run)
    refused = []
    for name in trackers:
        progress.say(f"Sending to {name}")
        sender = Sender(args.run, name)
        try:
            sent = sender.send(files=has_results)
        except UserError as error:
            refused.append(f"{name}: {error}")
            continue
        finally:
            sender.close()
        progress.say(f"{name}: {counted(sent, 'point')} sent" if sent else f"{name} is already complete")
    if refused:
        raise UserError("\n".join(refused))
    return 0
