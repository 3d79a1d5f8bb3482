"""An OpenAI-compatible server on loopback: every arm of a run is a model of it."""
