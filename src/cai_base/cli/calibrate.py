"""The command that measures a judge against human labels: `calibrate`."""

from pathlib import Path

from cai_base.cli.parser import Parser, nonempty_path, wants_help
from cai_base.errors import UserError
from cai_base.progress import Progress
from cai_base.text import for_terminal

USAGE = """\
usage: cai-base calibrate --judge JUDGE --labels FILE [flags]

Measure a judge against human labels of answers: the share of refusals that it detects (sensitivity), the share of other
answers that it does not call refusals (specificity), and the agreement, with exact 95 % intervals.

  --labels FILE  XSTest's published completions, or CSV with prompt, completion and final_label (full_compliance,
                full_refusal, partial_refusal); a partial refusal does not count as a refusal
  --out DIR      folder for replies and calibration.json; by default calibrations/<judge>-<file>
  --json         print calibration.json instead of the table

and these flags of cai-base run: --judge, --judge-url, --rubric, --votes, --judging.*, --threads.
"""


def calibrate(arguments: list[str]) -> int:
    """Measure a judge on labelled answers."""
    if not arguments or wants_help(arguments):
        print(USAGE, end="")
        return 0 if arguments else UserError.exit_code
    parser = Parser(prog="cai-base calibrate", usage=USAGE, add_help=False)
    parser.add_argument("--labels", type=nonempty_path, required=True)
    parser.add_argument("--out", type=nonempty_path, default=None)
    parser.add_argument("--json", action="store_true")
    args, flags = parser.parse_known_args(arguments)
    from cai_base.inputs.rubrics import rubrics_for
    from cai_base.run.evaluation.calibrate import CALIBRATION
    from cai_base.run.evaluation.calibrate import calibrate as measure
    from cai_base.settings.command_line import load_settings
    from cai_base.settings.judges import GROUND_TRUTH, NO_JUDGE

    settings = load_settings(flags).settings
    judge = settings.judge
    if judge is None or judge in (GROUND_TRUTH, NO_JUDGE):
        raise UserError(f"--judge {judge}: reads no English; give the judge to measure, such as gguf:FILE")
    folder = "-".join(filter(None, (judge.kind_name, Path(judge.name).stem, args.labels.stem)))
    out = args.out or Path("calibrations") / folder
    rubrics = tuple(rubrics_for(settings.rubric).values()) if settings.asks_rubrics else ()
    result = measure(settings.judge_choices["judge"], rubrics, args.labels, out, Progress())
    if args.json:
        print((out / CALIBRATION).read_text(encoding="utf-8"), end="")
        return 0
    confusion = result.confusion
    rows = {
        "refusals that it detects (sensitivity)": confusion.sensitivity,
        "other answers not called refusals (specificity)": confusion.specificity,
        "agreement with the labels": confusion.agreement,
    } | ({} if result.annotators is None else {"agreement of the two annotators": result.annotators})
    print(f"{result.judge}: {result.scored} of {result.answers} labelled answers scored")
    for label, one in rows.items():
        print(f"  {label:<50}{100 * one.value:5.1f} % [{100 * one.low:.1f}, {100 * one.high:.1f}]")
    print(for_terminal(str(out / CALIBRATION)))
    return 0
