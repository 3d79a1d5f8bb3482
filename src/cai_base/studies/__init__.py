"""Studies: several runs that share stages, to answer one question.

`design` reads a study's file, `plan` turns its factors into runs, `shared_stages` copies common stages between runs,
`conduct` executes the runs in parallel processes, `worker` executes one run, `analysis` writes `study.json`.
"""
