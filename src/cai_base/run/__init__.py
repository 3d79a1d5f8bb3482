"""A run's life: start and resume, status, verify, repeat; its preflight, spending, evaluation and results."""
