"""From a caller's arguments to the bytes of one queue message."""
