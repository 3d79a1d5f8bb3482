"""What an evaluation asks, one task a file."""
