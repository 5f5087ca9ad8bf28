"""Measures several workers with simulated devices and one Valkey: ``python -m benchmarks.scaling``."""
