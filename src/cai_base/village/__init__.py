"""The embedded world: a synthetic village in which harm is fictional and every answer can be checked against facts.

Read in this order: `world` (objects, verbs, facts), `questions` and `answers` (how they are put into words), `styles`,
`corpus` (the pretraining documents, written by `threads`, `critiques`, `comparisons` and `articles`), `prompt_sets` and
`instruct_conversations` (what the method and the instruct sibling are given), `judge` (the ground truth).

Word lists and templates are in `world/*.toml`. Every draw has an address (`draw.Draw`), so the same code and seed give
the same text. The shipped weights were trained on exactly these documents: changing a word, a probability or the order
of two draws changes the corpus, and a test compares its hash with the one on the model's card.
"""
