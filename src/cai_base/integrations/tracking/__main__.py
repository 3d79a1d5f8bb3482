"""`python -m cai_base.integrations.tracking RUN TRACKER`: follow a run until standard input ends."""

import os
import sys
from pathlib import Path

from cai_base.integrations.tracking.follow import follow

os.nice(10)
sys.exit(0 if follow(Path(sys.argv[1]), sys.argv[2]) else 1)
