"""Every setting of a run: the schema, the presets, the command line."""
