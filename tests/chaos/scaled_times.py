"""Shorter times of a worker's delivery, with which it passes through the same states sooner."""

from dataclasses import asdict

from worker.delivery.times import Times


def scaled_times(scale: float) -> Times:
    """Return the delivery's times, each multiplied by ``scale``."""
    return Times(**{name: scale * time_s for name, time_s in asdict(Times()).items()})
