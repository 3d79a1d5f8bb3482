"""The names of the files in a model's or an adapter's folder, as transformers and PEFT write them."""

MODEL_CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
