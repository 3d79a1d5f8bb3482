"""Evaluates a run's arms with the tasks of `cai_base.evaluation`; and the commands `evaluate`, `style`, `calibrate`."""
