"""From the stored files to results: of a run, a suite and the styles, with their warnings, and runs compared."""
