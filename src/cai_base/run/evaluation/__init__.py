"""Asks the tasks of `cai_base.evaluation`: of a run's own arms, and for `evaluate`, `style` and `calibrate`."""
