"""Exports an arm of a finished run: PEFT adapter, merged Hugging Face folder, GGUF file, or preference pairs."""
