"""Each peer's program, as the peer's documentation recommends; it runs in its own environment, without nameshot."""
