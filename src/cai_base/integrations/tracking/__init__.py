"""Sends a run's curves to trackers: Weights & Biases, trackio, TensorBoard.

The run's folder is the queue: whatever is stored there can be sent, now or later, so a tracker that is slow or away
costs a run nothing. `points` reads the folder, `sinks` speaks to the trackers, `send` remembers what was sent, and
`follow` does it beside a run, in a process of its own.
"""
