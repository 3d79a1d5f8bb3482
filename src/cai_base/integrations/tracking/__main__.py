"""`python -m cai_base.integrations.tracking RUN TRACKER`: follow a run until standard input ends.

Standard output has what the run should say. What a tracker's library prints goes to standard error, the tracker's log.
"""

import os
import sys
from pathlib import Path

from cai_base.integrations.tracking.follow import follow

os.nice(10)
with open(os.dup(sys.stdout.fileno()), "wb", buffering=0) as output:  # which no process of a library inherits
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    everything = follow(Path(sys.argv[1]), sys.argv[2], output)
sys.exit(0 if everything else 1)
