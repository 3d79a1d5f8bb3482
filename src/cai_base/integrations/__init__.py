"""Other programs: Inspect."""
