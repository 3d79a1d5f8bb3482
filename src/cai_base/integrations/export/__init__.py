"""Takes an arm of a finished run elsewhere: a PEFT adapter, a merged Hugging Face folder, a GGUF file, or its pairs."""
