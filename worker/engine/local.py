"""The engine: turns prepared pixels and prompts into embeddings, in batches on the device's threads.

It implements `worker.engine.interface`; `worker.engine_process` serves the same interface from another process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Final
from weakref import ref

from producer.contract.names import Queue
from worker.concurrency.cancel_scope import Cancelled, CancelScope
from worker.engine.batch_queue import BatchQueue, BatchResult
from worker.engine.batch_size import BatchSize
from worker.engine.batcher import Batcher, BatcherClosed
from worker.engine.failures import failure_of, judge, result_within
from worker.engine.interface import Array
from worker.engine.stages import Stages, SuspectQueue
from worker.model.interface import DeviceLostError, Model, Prepared

AroundBatch = Callable[[Sequence[object]], AbstractContextManager[object]]

#: Prompts in one batch. On the CPU 128 short prompts take about as long as a batch of images, so an image behind new
#: labels waits no longer than for another batch of images.
PROMPT_BATCH: Final = 128
#: The latency target covers images of these queues; bulk fills the places that they leave.
PROMISED: Final[tuple[Queue, ...]] = ("high", "default")


class LocalEngine:
    """An engine in this process: the model, and the threads that may call it.

    Args:
        max_batch: images in one forward pass, or a function that measures it, called first in the device's thread.
        weights: each queue's share of the places in a batch, while more images wait than fit.
        max_wait_s: how long an idle device waits for a batch to grow; 0 never waits.
        latency_target_s: from submission to embedding, for images of the queues high and default; None: no target.
        on_device_lost: called from the device's thread, still inside `around_batch`, once the device no longer
            answers this process; only a new process helps then.
        around_batch: called with a batch's images or prompts; the batch runs inside the context it returns.
        stages: keeps suspects' images and prompts apart, so that each runs alone.
    """

    is_available = True
    unavailable_reason: str | None = None
    keeps_suspects_apart = True

    def __init__(
        self,
        model: Model,
        *,
        max_batch: int | Callable[[], int],
        weights: Mapping[Queue, int],
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
            threads=model.parallel_batches, max_wait_s=max_wait_s, judge=judge, gate=self._stages.together
        )
        self._on_device_lost = on_device_lost
        self._batcher.start()
        if not isinstance(max_batch, int):
            start: BatchQueue[Callable[[], int], int] = self._batcher.add_queue(
                "start", lambda calls: [calls[0]()], max_batch=1
            )
            max_batch = self._result_or_end(start.submit(max_batch))
        #: Images in one forward pass while there is memory.
        self.max_batch = max_batch
        self._images: BatchQueue[Prepared, Array] = self._batcher.add_queue(
            "images", self._run_images, max_batch, weights, BatchSize(latency_target_s, PROMISED)
        )
        self._prompts: BatchQueue[str, Array] = self._batcher.add_queue("prompts", self._run_prompts, PROMPT_BATCH)
        self._images_alone: SuspectQueue[Prepared, Array] = self._stages.add_queue(
            "images alone", partial(self._run, model.embed_images), 1
        )
        self._prompts_alone: SuspectQueue[str, Array] = self._stages.add_queue(
            "prompts alone", partial(self._run, model.embed_texts), PROMPT_BATCH
        )

    def count_tokens(self, prompts: Sequence[str], scope: CancelScope) -> list[int]:
        """Implement `Engine.count_tokens`."""
        return self._stages.run(partial(self._model.count_tokens, prompts), scope)

    def embed_prompt(self, prompt: str, scope: CancelScope | None = None, *, alone: bool = False) -> Future[Array]:
        """Queue one prompt; the future gives its embedding, shape (d,), or raises `JobFailed`.

        Cancelling the future before its batch starts removes the prompt.

        Args:
            alone: run it in a batch of its own.
        """
        embedding: Future[Array] = Future()

        def arrived(done: Future[BatchResult[Array]]) -> None:
            if not embedding.set_running_or_notify_cancel():
                return
            try:
                embedding.set_result(done.result().output)
            except (Exception, CancelledError) as error:
                embedding.set_exception(failure_of(error, "a label"))

        try:
            if scope is not None and scope.suspect is not None:
                queued = self._prompts_alone.submit(prompt, scope)
            else:
                queued = self._prompts.submit(prompt, object() if alone else None)
        except BatcherClosed as error:
            embedding.set_exception(failure_of(error, "a label"))
        else:
            # A weak reference, since `queued` refers to `embedding` already; the queue keeps it while it waits.
            embedding.add_done_callback(partial(_cancel_queued, ref(queued)))
            queued.add_done_callback(arrived)
        return embedding

    def embed_image(self, prepared: Prepared, queue: Queue, scope: CancelScope) -> BatchResult[Array]:
        """Queue one image and wait for its embedding: (d,), or (q, d) for families with q vectors per image.

        Raises:
            JobFailed: ``deadline_exceeded``, ``out_of_memory``, ``model_error``.
            Cancelled: the scope was cancelled; a batch that already runs is not waited for.
        """
        try:
            if scope.suspect is not None:
                return result_within(self._images_alone.submit(prepared, scope), scope)
            return result_within(self.queue_image(prepared, queue), scope)
        except Cancelled:
            raise
        except Exception as error:
            raise failure_of(error, "this image") from None

    def queue_image(self, prepared: Prepared, queue: Queue) -> Future[BatchResult[Array]]:
        """Queue one image; the future raises the model's error, which `failure_of` turns into a `JobFailed`.

        Raises:
            BatcherClosed: the engine has ended.
        """
        return self._images.submit(prepared, prepared.key, queue)

    @property
    def waiting(self) -> int:
        """Images that wait for the device."""
        return len(self._images)

    @property
    def busy_s(self) -> float:
        """Seconds the oldest running batch has taken so far; 0 when the device is idle."""
        return max(self._batcher.busy_s, self._stages.busy_s)

    @property
    def batch_cost_s(self) -> tuple[float, float]:
        """Learned cost of a batch of n images under load, a and b of a + b·n; 0 and 0 before the first batch."""
        line = self._images.size.line
        return line.fixed_s, line.item_s

    @property
    def batch_limit(self) -> int:
        """Images that a batch may have while no job has waited too long."""
        return self._images.size.choose(self._images.max_batch)

    def close(self) -> None:
        """End the device threads and fail what still waits."""
        self._batcher.close(timeout_s=5)
        self._stages.close()

    def _result_or_end(self, future: Future[BatchResult[int]]) -> int:
        try:
            return future.result().output
        except Exception:
            self.close()
            raise

    def _run_images(self, batch: Sequence[Prepared]) -> list[Array]:
        with self._around_batch(batch):
            return self._run(self._model.embed_images, batch, self._batcher.parallel)

    def _run_prompts(self, batch: Sequence[str]) -> list[Array]:
        with self._around_batch(batch):
            return self._run(self._model.embed_texts, [str(prompt) for prompt in batch], self._batcher.parallel)

    def _run(self, embed: Callable[..., Array], batch: Sequence[object], parallel: int = 1) -> list[Array]:
        """Run a batch, and copy each of its rows: a view that is kept would keep the whole batch's memory.

        Before `around_batch` or a suspect's turn ends, `on_device_lost` is called: both record what was on the device.
        """
        try:
            return [row.copy() for row in embed(batch, parallel)]
        except DeviceLostError:
            self._on_device_lost()
            raise


def _cancel_queued(queued: ref[Future[BatchResult[Array]]], embedding: Future[Array]) -> None:
    if embedding.cancelled() and (waiting := queued()) is not None:
        waiting.cancel()
