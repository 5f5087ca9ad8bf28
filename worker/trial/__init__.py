"""Tries checkpoints in this process, without a queue: two against each other, or one against Transformers' pipeline."""
