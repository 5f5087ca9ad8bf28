"""A front's engine, which sends requests to one engine process after another, and the front's model."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, Final

from PIL import Image

from producer.contract.names import QUEUES, Queue
from producer.errors import JobFailed
from worker.concurrency.cancel_scope import CancelScope
from worker.engine.batch_queue import BatchResult
from worker.engine.failures import result_within
from worker.engine_process import frames
from worker.engine_process.frames import ProtocolError, State
from worker.engine_process.info import EngineInfo
from worker.engine_process.link import Link
from worker.engine_process.requests import CountRequest, ImageRequest, PromptRequest, Request
from worker.model.interface import Float32, Prepared
from worker.model.pixels import GeometryPreparation, Preparation
from worker.runtime.logs import place_of

logger = logging.getLogger(__name__)

#: The pause between attempts to connect, which is short compared with the seconds in which an engine loads its model.
RETRY_S: Final = 0.2
#: An engine sends its state every second. An engine that is silent for this long may be frozen, which the launcher
#: checks.
SILENT_S: Final = 10.0


class RemoteModel:
    """Implements `worker.model.interface.HostModel`.

    Args:
        info: the engine's description of its model.
        load_preparation: loads the model's preparation; called by the constructor if no geometry describes it.
    """

    def __init__(self, info: EngineInfo, load_preparation: Callable[[], Preparation]) -> None:
        self.name, self.revision, self.family = info.name, info.revision, info.family
        self.device, self.dtype, self.parallel_batches = info.device, info.dtype, info.parallel_batches
        self.max_tokens, self.scoring, self.logits = info.max_tokens, info.scoring, info.logits
        self.geometry = info.geometry
        self._preparation = GeometryPreparation(info.geometry) if info.geometry else load_preparation()

    def prepare(self, image: Image.Image) -> Prepared:
        """Implement `HostModel.prepare`."""
        return self._preparation.prepare(image)


class RemoteEngine:
    """Implements `worker.engine.interface.Engine` over a connection to an engine process.

    While no engine runs, requests wait. The next engine gets the requests that a dead one had not answered, except
    those that have reached their maximum of deaths; see `worker.engine_process.requests`.

    Args:
        path: the engine's socket.
        info: the engine's description of its model.
        slots: the most images in flight.
        on_other_model: called if a new engine has another model, because this process caches embeddings of the old one.
    """

    keeps_suspects_apart = False

    def __init__(self, path: Path, info: EngineInfo, *, slots: int, on_other_model: Callable[[], None]) -> None:
        self.max_tokens = info.max_tokens
        self._path, self._info, self._slots = path, info, slots
        self._on_other_model = on_other_model
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._closed = threading.Event()
        #: Unanswered requests by number, in the order of submission.
        self._requests: dict[int, Request] = {}
        self._last_number = 0
        self._state = State()
        self._state_at_s = 0.0
        threading.Thread(target=self._serve, name="engine-link", daemon=True).start()

    @property
    def unavailable_reason(self) -> str | None:
        """Why the engine is unavailable; None while one is connected and not silent."""
        if self._link is None:
            return "the engine is not connected"
        return "the engine is silent" if time.monotonic() - self._state_at_s >= SILENT_S else None

    @property
    def waiting(self) -> int:
        """The number of all fronts' images that wait for the device, as the engine last reported."""
        return self._state.waiting

    @property
    def busy_s(self) -> float:
        """`Engine.busy_s`, as the engine last reported; if a batch hangs, the engine itself ends."""
        return self._state.busy_s

    @property
    def batch_cost_s(self) -> tuple[float, float]:
        """`Engine.batch_cost_s`, as the engine last reported."""
        return self._state.fixed_s, self._state.item_s

    @property
    def batch_limit(self) -> int:
        """`Engine.batch_limit`, as the engine last reported."""
        return self._state.batch_limit

    def count_tokens(self, prompts: Sequence[str], scope: CancelScope) -> list[int]:
        """Implement `Engine.count_tokens`."""
        request = CountRequest(list(prompts))
        self._submit(request)
        too_late = "the labels' tokens were not counted within the job's time."
        counts: list[int] = result_within(request.future, scope, too_late)
        return counts

    def embed_prompt(self, prompt: str, scope: CancelScope | None = None) -> Future[BatchResult[Float32]]:  # noqa: ARG002 - no prompt can end this process
        """Implement `Engine.embed_prompt`."""
        request = PromptRequest(prompt)
        self._submit(request)
        return request.future

    def embed_image(self, prepared: Prepared, queue: Queue, scope: CancelScope) -> BatchResult[Float32]:
        """Implement `Engine.embed_image`."""
        request = ImageRequest(prepared, QUEUES.index(queue))
        if request.layout.size_bytes > self._info.slot_bytes:
            raise JobFailed("model_error", "this image, once prepared, is larger than the model's images can be.")
        self._submit(request)
        result: BatchResult[Float32] = result_within(request.future, scope)
        return result

    def close(self) -> None:
        """End the connection and fail unanswered requests."""
        self._closed.set()
        with self._lock:
            link, requests = self._link, list(self._requests.values())
            self._requests.clear()
        if link is not None:
            link.end()
        for request in requests:
            request.fail(_ending())

    def _submit(self, request: Request) -> None:
        with self._lock:
            self._last_number += 1
            request.number = self._last_number
            if not (closed := self._closed.is_set()):
                self._requests[request.number] = request
                if self._link is not None:
                    self._link.send(request)
        if closed:
            request.fail(_ending())
        # The callback gets only the number, because a future that referred to its request would form a cycle, and the
        # pixels would stay in memory until a garbage collection.
        request.future.add_done_callback(partial(self._done, request.number))

    def _done(self, number: int, future: Future[Any]) -> None:
        """Remove a cancelled request, or cancel it at the engine if it was sent."""
        if not future.cancelled():
            return
        with self._lock:
            request = self._requests.get(number)
            if request is not None and (self._link is None or not self._link.cancel(request)):
                del self._requests[number]

    def _serve(self) -> None:
        """Connect to an engine, send it the waiting requests and read its replies until it ends; then start over."""
        while not self._closed.is_set():
            try:
                self._use_an_engine()
            except OSError:
                pass  # no engine listens
            except ProtocolError as error:
                logger.error("the engine broke the protocol: %s", error)
            except Exception as error:  # no error may end this thread
                logger.error("cannot use the engine's reply: %s at %s", type(error).__name__, place_of(error))
            self._closed.wait(RETRY_S)

    def _use_an_engine(self) -> None:
        link = Link(self._path, self._slots)
        try:
            if link.info != self._info:
                logger.critical("the new engine has another model: this front restarts")
                self._on_other_model()
                return
            self._adopt(link)
            for kind, number, payload in link.replies():
                self._handle(link, kind, number, payload)
        finally:
            self._lose(link)

    def _adopt(self, link: Link) -> None:
        self._state_at_s = time.monotonic()
        with self._lock:
            self._link = link
            for request in self._requests.values():
                link.send(request)
            waiting = len(self._requests)
        if waiting:
            logger.info("connected to the engine: sent it %d waiting requests", waiting)

    def _lose(self, link: Link) -> None:
        link.close()
        given_up = []
        with self._lock:
            was_in_use = self._link is link
            self._link, self._state = None, State()
            for request in list(self._requests.values()):
                if request.future.done():
                    del self._requests[request.number]
                elif link.count_death(request):
                    del self._requests[request.number]
                    given_up.append(request)
        for request in given_up:
            request.give_up()
        if was_in_use and not self._closed.is_set():
            logger.warning("the engine has ended: %d requests wait for the next one", len(self._requests))

    def _handle(self, link: Link, kind: int, number: int, payload: bytes) -> None:
        if kind == frames.STATE:
            self._state_at_s = time.monotonic()
            self._state = State(*frames.STATE_FRAME.unpack(payload))
            return
        with self._lock:
            request = self._requests.pop(number, None)
            link.free_slot(number)
        if request is not None:
            request.resolve(kind, payload)


def _ending() -> JobFailed:
    return JobFailed("deadline_exceeded", "the worker is shutting down.")
