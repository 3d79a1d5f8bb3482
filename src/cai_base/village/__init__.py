"""The embedded world: its language, its truth, its judge."""
