"""Throughput of the whole system beside the model's own limit; ``python -m benchmarks``."""
