"""The alternatives to nameshot, which ``python -m benchmarks`` runs with the same pictures, model and machine."""
