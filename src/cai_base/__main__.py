"""`python -m cai_base` is the command `cai-base`."""

import sys

from cai_base.cli import main

sys.exit(main())
