"""Preflight: the checks before anything is spent, and what happens if one fails.

`outcome` defines a check; `judges`, `models`, `critique`, `feedback`, `design` and `resources` have the checks;
`checks` makes all of them in order.
"""
