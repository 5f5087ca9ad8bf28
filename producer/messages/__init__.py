"""Turn a caller's arguments into queue messages."""
