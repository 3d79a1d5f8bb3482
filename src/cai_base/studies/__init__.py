"""Studies: several runs that share stages and answer one question.

`design` reads the file of a study, `plan` makes runs of its factors, `shared_stages` copies what runs have in common,
`conduct` does the runs in parallel processes, `worker` does one, `analysis` writes `study.json`.
"""
