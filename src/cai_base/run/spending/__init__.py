"""What a run costs: the bound before it, its prices and limits, the forecast of its time, and what it has spent."""
