"""The embedded base model: a model organism.

A small Llama pretrained on a synthetic village world in which harm is fictional and a ground-truth judge is exact. It
proves the pipeline and makes studies runnable on a laptop; it is not evidence about large models.
"""

from pathlib import Path


def weights() -> Path:
    """The folder with the shipped weights and tokenizer, in Hugging Face layout."""
    return Path(__file__).parent / "weights"
