"""Several workers on simulated devices against one Valkey; ``python -m benchmarks.scaling``."""
