"""What a run costs: an upper bound in advance, prices, limits, a forecast of its time, and what it has spent."""
