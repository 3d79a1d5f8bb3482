"""The command that sends a run to trackers: `track`."""

from cai_base.cli.parser import run_parser
from cai_base.errors import UserError
from cai_base.paths import REPORT_HTML
from cai_base.progress import Progress


def track(arguments: list[str]) -> int:
    """Send what the run's trackers, or those that are named, do not have yet."""
    parser = run_parser("track", "Send a run's curves to a tracker, or what its trackers do not have yet.")
    parser.add_argument("--to", metavar="NAMES", default="", help="trackers, with commas: wandb, trackio, tensorboard")
    args = parser.parse_args(arguments)
    from cai_base.integrations.tracking.send import Sender, begin, trackers_of
    from cai_base.store import Run

    progress = Progress()
    progress.say(f"Checking the files of {args.run}")
    Run.open(args.run)
    begin(args.run, [name.strip() for name in args.to.split(",") if name.strip()])
    names = trackers_of(args.run)
    if not names:
        raise UserError(f"{args.run}: is sent to no tracker; name one, such as --to tensorboard")
    for name in names:
        progress.say(f"Sending to {name}")
        sender = Sender(args.run, name)
        sent = sender.send(files=(args.run / REPORT_HTML).exists())
        sender.close()
        progress.say(f"{name}: {sent} points sent" if sent else f"{name} had everything")
    return 0
