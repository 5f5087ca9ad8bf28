"""What the rest of the worker needs of the device, whichever process it is in."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from producer.contract import Queue
from worker.concurrency.cancel_scope import CancelScope
from worker.engine.lane import BatchResult
from worker.model.interface import Prepared

Array = NDArray[np.float32]


class Engine(Protocol):
    """What the rest of the worker needs of the device."""

    max_tokens: int
    #: Whether what is asked here for a suspect runs alone, when its turn comes: it could end this process.
    keeps_suspects_apart: bool

    @property
    def is_available(self) -> bool:
        """Whether there is a device to work on now; what is asked meanwhile waits for it."""
        ...

    @property
    def absence(self) -> str | None:
        """Why there is none, in a few words; None while there is."""
        ...

    @property
    def waiting(self) -> int:
        """Images that wait for the device."""
        ...

    @property
    def busy_s(self) -> float:
        """Seconds the oldest running batch has taken so far; 0 when the device is idle."""
        ...

    @property
    def batch_cost_s(self) -> tuple[float, float]:
        """What a batch of n images takes under load, as learned: a and b of a + b·n; 0 and 0 before the first."""
        ...

    @property
    def batch_limit(self) -> int:
        """Images that a batch may have while no job waits too long."""
        ...

    def count_tokens(self, prompts: Sequence[str], scope: CancelScope) -> list[int]:
        """Tokens of each prompt, special tokens included.

        Raises:
            JobFailed: ``deadline_exceeded``.
            Cancelled: the scope was cancelled.
        """
        ...

    def embed_prompt(self, prompt: str, scope: CancelScope | None = None) -> Future[Array]:
        """Queue one prompt; its embedding has shape (d,). Cancelling the future takes it out while it waits.

        Args:
            scope: of the job that asks; a suspect's prompts run alone where they could end this process.
        """
        ...

    def embed_image(self, prepared: Prepared, queue: Queue, scope: CancelScope) -> BatchResult[Array]:
        """Ride in a batch and wait for it while the scope lasts."""
        ...

    def close(self) -> None:
        """End the device threads."""
        ...
