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
    #: Whether a suspect's work waits for a turn in which it runs alone, because it could end this process.
    keeps_suspects_apart: bool

    @property
    def unavailable_reason(self) -> str | None:
        """Why the device cannot work now, in a few words; None if it can. Requests wait until it can."""

    @property
    def waiting(self) -> int:
        """The number of images that wait for the device."""

    @property
    def busy_s(self) -> float:
        """Seconds since the oldest running batch started; 0 while the device is idle."""

    @property
    def batch_cost_s(self) -> tuple[float, float]:
        """The learned a and b of a + b·n, the seconds that a batch of n images takes; both 0 before the first batch."""

    @property
    def batch_limit(self) -> int:
        """The number of images that a batch may have, unless an image has waited too long."""

    def count_tokens(self, prompts: Sequence[str], scope: CancelScope) -> list[int]:
        """Count the tokens of each prompt, special tokens included.

        Raises:
            JobFailed: ``deadline_exceeded``, or the failure that an engine process reports.
            Exception: what the tokenizer raises in this process.
            Cancelled: the scope was cancelled.
        """

    def embed_prompt(self, prompt: str, scope: CancelScope | None = None) -> Future[BatchResult[Float32]]:
        """Queue one prompt and return the future of its embedding, (d,).

        Cancelling the future removes a prompt that still waits. If the prompt fails, the future raises an error that
        `worker.engine.failures.failure_of` turns into a `JobFailed`.

        Args:
            scope: the job's scope; a suspect's prompts run alone if they could end this process.
        """

    def embed_image(self, prepared: Prepared, queue: Queue, scope: CancelScope) -> BatchResult[Float32]:
        """Queue one image and return its embedding: (d,), or (q, d) for families with q vectors per image.

        Raises:
            JobFailed: ``deadline_exceeded``, ``out_of_memory``, ``model_error``.
            Cancelled: the scope was cancelled; if the image's batch already runs, it continues.
        """

    def close(self) -> None:
        """End the device's threads, or the connection to them; requests that are not done fail."""
