"""Preflight: the checks that are made before anything is spent, and what becomes of one that fails.

`outcome` says what a check is; `judges`, `models`, `design` and `resources` have the checks; `checks` makes all of them
in order.
"""
