"""Sends a run's curves to trackers: Weights & Biases, trackio, TensorBoard.

The run's folder is the queue: everything stored there can be sent, now or later, so a slow or unavailable tracker does
not delay a run. `points` reads the folder, `sinks` has the trackers' interfaces, `send` sends points and records what
was sent, and `follow` does this during a run, in a separate process.
"""
