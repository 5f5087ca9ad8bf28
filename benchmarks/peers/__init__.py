"""What one would run instead of nameshot, on the same pictures, model and machine: ``python -m benchmarks.peers``."""
