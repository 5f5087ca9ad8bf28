"""``nameshot evaluate``: classify pictures whose labels are known, and tell how often the model is right."""
