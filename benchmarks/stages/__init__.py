"""Measures a worker's CPU time by stage."""
