"""The engine's interface, for an engine in this process or in another one."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

from producer.contract.names import Queue
from worker.concurrency.cancel_scope import CancelScope
from worker.engine.batch_queue import BatchResult
from worker.model.interface import Float32, Prepared


class Engine(Protocol):
    """Computes embeddings on the device."""

    max_tokens: int
    #: Whether a suspect's work runs alone, in its turn, because it could end this process.
    keeps_suspects_apart: bool

    @property
    def is_available(self) -> bool:
        """Whether the device can work now; until it can, requests wait."""

    @property
    def unavailable_reason(self) -> str | None:
        """Why the engine is unavailable, in a few words; None while it is available."""

    @property
    def waiting(self) -> int:
        """Images that wait for the device."""

    @property
    def busy_s(self) -> float:
        """Seconds the oldest running batch has taken so far; 0 when the device is idle."""

    @property
    def batch_cost_s(self) -> tuple[float, float]:
        """Learned cost of a batch of n images under load, a and b of a + b·n; 0 and 0 before the first batch."""

    @property
    def batch_limit(self) -> int:
        """Images that a batch may have while no job has waited too long."""

    def count_tokens(self, prompts: Sequence[str], scope: CancelScope) -> list[int]:
        """Count the tokens of each prompt, special tokens included.

        Raises:
            JobFailed: ``deadline_exceeded``.
            Cancelled: the scope was cancelled.
        """

    def embed_prompt(self, prompt: str, scope: CancelScope | None = None) -> Future[BatchResult[Float32]]:
        """Queue one prompt; its embedding has shape (d,). Cancelling the future removes a prompt that still waits.

        The future raises an error that `worker.engine.failures.failure_of` turns into a `JobFailed`.

        Args:
            scope: the job's; a suspect's prompts run alone where they could end this process.
        """

    def embed_image(self, prepared: Prepared, queue: Queue, scope: CancelScope) -> BatchResult[Float32]:
        """Queue one image and wait for its embedding while the scope lasts."""

    def close(self) -> None:
        """End the device threads."""
