"""A device that sleeps for a known time per batch, and so uses no CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Device:
    """A device on which a batch of n images takes ``forward_ms + image_ms * n``.

    Attributes:
        max_batch: the largest number of images in one batch.
    """

    forward_ms: float
    image_ms: float
    max_batch: int

    @property
    def images_per_s(self) -> float:
        """The rate of full batches; infinite if they take no time."""
        batch_ms = self.forward_ms + self.image_ms * self.max_batch
        return self.max_batch / batch_ms * 1000 if batch_ms else float("inf")

    def environment(self) -> dict[str, str]:
        """Return the environment variables that give a worker this device."""
        return {
            "SCALING_FORWARD_MS": str(self.forward_ms),
            "SCALING_IMAGE_MS": str(self.image_ms),
            "NAMESHOT_MAX_BATCH": str(self.max_batch),
        }

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Return the device in these environment variables."""
        return cls(
            float(environment["SCALING_FORWARD_MS"]),
            float(environment["SCALING_IMAGE_MS"]),
            int(environment["NAMESHOT_MAX_BATCH"]),
        )
