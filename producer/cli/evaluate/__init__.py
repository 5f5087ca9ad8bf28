"""``nameshot evaluate``: classify pictures whose labels are known, and report how often the model is right."""
