"""A picture or a label becomes a vector once: caches in front of decoding and the engine."""
