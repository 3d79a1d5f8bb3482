"""A run's life: start and resume, preflight, budget and cost, context fit, results."""
