"""A worker's metrics, probes and readiness."""
