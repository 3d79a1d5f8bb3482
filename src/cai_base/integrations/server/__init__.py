"""An OpenAI-compatible server on loopback, with every arm of a run as a model."""
