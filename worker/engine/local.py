"""The engine in this process: embeds prepared images and prompts, in batches that the device's threads run.

It implements `worker.engine.interface`; `worker.engine_process` serves the same interface from another process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Final

from producer.contract.names import Queue
from worker.concurrency.cancel_scope import Cancelled, CancelScope
from worker.concurrency.shares import WEIGHTS
from worker.engine.batch_queue import BatchQueue, BatchResult
from worker.engine.batch_size import BatchSize
from worker.engine.batcher import Batcher
from worker.engine.failures import failure_of, result_within, verdict_on
from worker.engine.stages import Stages, SuspectQueue
from worker.model.interface import DeviceLostError, Float32, Model, Prepared

AroundBatch = Callable[[Sequence[object]], AbstractContextManager[object]]

#: The most prompts in one batch. On a CPU, 128 short prompts take about as long as a batch of images, so an image waits
#: no longer for a batch of new labels than for a batch of images.
PROMPT_BATCH: Final = 128
#: The latency target covers images of these queues; images of ``bulk`` fill the remaining places of a batch.
PROMISED: Final[tuple[Queue, ...]] = ("high", "default")


class LocalEngine:
    """An engine in this process: the model, and the threads that may call it.

    Args:
        max_batch: the most images in one forward pass, or a function that measures this number. The device's thread
            calls the function before it runs any batch.
        max_wait_s: how long an idle device waits for a batch to fill up; with 0 it does not wait.
        latency_target_s: the longest time from submission to embedding, for images of the queues ``high`` and
            ``default``; with None there is no target.
        on_device_lost: called in the batch's thread, inside `around_batch` or the suspect's turn, when the device no
            longer answers this process, so that only a new process helps.
        around_batch: called with a batch's images or prompts; returns the context in which the batch runs.
        stages: runs suspects' images and prompts alone.
    """

    unavailable_reason: str | None = None
    keeps_suspects_apart = True

    def __init__(
        self,
        model: Model,
        *,
        max_batch: int | Callable[[], int],
        max_wait_s: float = 0.0,
        latency_target_s: float | None = None,
        on_device_lost: Callable[[], None],
        around_batch: AroundBatch = nullcontext,
        stages: Stages | None = None,
    ) -> None:
        self.max_tokens = model.max_tokens
        self._model = model
        self._around_batch = around_batch
        self._stages = stages or Stages()
        self._batcher = Batcher(
            threads=model.parallel_batches, max_wait_s=max_wait_s, verdict_on=verdict_on, gate=self._stages.together
        )
        self._on_device_lost = on_device_lost
        self._batcher.start()
        if not isinstance(max_batch, int):
            start: BatchQueue[Callable[[], int], int] = self._batcher.add_queue(
                "start", lambda calls: [calls[0]()], max_batch=1
            )
            try:
                max_batch = start.submit(max_batch).result().output
            except Exception:
                self.close()
                raise
        #: The most images in one forward pass, as long as there is enough memory.
        self.max_batch = max_batch
        self._images: BatchQueue[Prepared, Float32] = self._batcher.add_queue(
            "images", self._run_images, max_batch, WEIGHTS, BatchSize(latency_target_s, PROMISED)
        )
        self._prompts: BatchQueue[str, Float32] = self._batcher.add_queue("prompts", self._run_prompts, PROMPT_BATCH)
        self._images_alone: SuspectQueue[Prepared, Float32] = self._stages.add_queue(
            "images alone", partial(self._run, model.embed_images), 1
        )
        self._prompts_alone: SuspectQueue[str, Float32] = self._stages.add_queue(
            "prompts alone", partial(self._run, model.embed_texts), PROMPT_BATCH
        )

    def count_tokens(self, prompts: Sequence[str], scope: CancelScope) -> list[int]:
        """Implement `Engine.count_tokens`."""
        return self._stages.run(partial(self._model.count_tokens, prompts), scope)

    def embed_prompt(
        self, prompt: str, scope: CancelScope | None = None, *, alone: bool = False
    ) -> Future[BatchResult[Float32]]:
        """Implement `Engine.embed_prompt`.

        Args:
            alone: whether to run the prompt in a batch of its own.
        """
        if scope is not None and scope.suspect is not None:
            return self._prompts_alone.submit(prompt, scope)
        return self._prompts.submit(prompt, object() if alone else None)

    def embed_image(self, prepared: Prepared, queue: Queue, scope: CancelScope) -> BatchResult[Float32]:
        """Implement `Engine.embed_image`."""
        try:
            if scope.suspect is not None:
                return result_within(self._images_alone.submit(prepared, scope), scope)
            return result_within(self.queue_image(prepared, queue), scope)
        except Cancelled:
            raise
        except Exception as error:
            raise failure_of(error, "this image") from None

    def queue_image(self, prepared: Prepared, queue: Queue) -> Future[BatchResult[Float32]]:
        """Queue one image and return the future of its embedding, whose errors `failure_of` translates."""
        return self._images.submit(prepared, prepared.key, queue)

    @property
    def waiting(self) -> int:
        """Implement `Engine.waiting`; suspects' images are not counted."""
        return len(self._images)

    @property
    def busy_s(self) -> float:
        """Implement `Engine.busy_s`."""
        return max(self._batcher.busy_s, self._stages.busy_s)

    @property
    def batch_cost_s(self) -> tuple[float, float]:
        """Implement `Engine.batch_cost_s`."""
        line = self._images.size.line
        return line.fixed_s, line.item_s

    @property
    def batch_limit(self) -> int:
        """Implement `Engine.batch_limit`."""
        return self._images.size.choose(self._images.max_batch)

    def close(self) -> None:
        """End the device's threads and fail waiting items."""
        self._batcher.close(timeout_s=5)
        self._stages.close()

    def _run_images(self, batch: Sequence[Prepared]) -> list[Float32]:
        with self._around_batch(batch):
            return self._run(self._model.embed_images, batch, self._batcher.parallel)

    def _run_prompts(self, batch: Sequence[str]) -> list[Float32]:
        with self._around_batch(batch):
            return self._run(self._model.embed_texts, [str(prompt) for prompt in batch], self._batcher.parallel)

    def _run(self, embed: Callable[..., Float32], batch: Sequence[object], parallel: int = 1) -> list[Float32]:
        """Run a batch and return a copy of each row, because a view would keep the whole batch's memory.

        If the device is lost, call `on_device_lost` before `around_batch` or the suspect's turn ends, because these
        record what is on the device.
        """
        try:
            return [row.copy() for row in embed(batch, parallel)]
        except DeviceLostError:
            self._on_device_lost()
            raise
