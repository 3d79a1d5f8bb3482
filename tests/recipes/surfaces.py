"""Runs on the copy: prints as JSON what the watch page and the trackers show of its run."""

import json
from pathlib import Path

from cai_base.integrations.tracking.points import stored_points
from cai_base.integrations.tracking.sinks import COLUMNS
from cai_base.report.watch import html
from cai_base.run.status import read_status
from cai_base.settings.validation import stored_settings
from cai_base.store import Run

folder = Path("run")
run = Run.watch(folder)
settings = stored_settings(run)
curves = stored_points(run, settings.evaluated_arms, settings.training_steps, settings.evaluate_every, seed=0)
points = sorted({name for curve in curves.values() for point in curve for name in point.values})
print(json.dumps({"watch": html(read_status(folder), every=5), "points": points, "columns": COLUMNS}))
