"""How the embedded base model, a model organism, and its instruct sibling are made and measured.

`build` pretrains the base model: `training_data` (tokenizer and rows of tokens from the corpus of `village`), `model`,
`optimizers`, `pretraining` (the loop). `make_sibling` trains the instruct sibling. `measure` counts what a finished
model can do: `abilities` (what is asked and counted), `ability_table` (the rows and their targets). `cards` describes
both models in Markdown.
"""
