"""Compares the throughput of the whole system with the limit of the model alone: ``python -m benchmarks``."""
