"""Building and measuring the embedded base model, a model organism, and its instruct sibling."""
