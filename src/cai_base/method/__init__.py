"""The phases of the method, one file each: what a phase needs, does, stores and costs."""
