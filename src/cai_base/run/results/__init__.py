"""Computes the results of a run, a suite and the styles from stored files, their warnings, and comparisons of runs."""
