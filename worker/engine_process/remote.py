"""A front's engine: what is asked of it is done by an engine process, by its successor if it dies."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from functools import partial
from pathlib import Path
from typing import Any, Final

from producer.contract import QUEUES, Queue
from producer.errors import JobFailed
from worker.concurrency.cancel_scope import Cancelled, CancelScope
from worker.engine.batcher import BatchResult
from worker.engine.failures import too_late
from worker.engine_process import frames
from worker.engine_process.frames import Array, ProtocolError, State
from worker.engine_process.link import Link
from worker.engine_process.requests import CountRequest, ImageRequest, PromptRequest, Request
from worker.engine_process.terms import EngineInfo
from worker.model.interface import Prepared
from worker.runtime.logs import place_of

logger = logging.getLogger(__name__)

#: Between attempts to connect: an engine that was killed is started again within seconds, and takes some to load.
RETRY_S: Final = 0.2
#: An engine says how it is each second; one that has not for so long may be frozen, and the launcher looks at it.
SILENT_S: Final = 10.0


class RemoteEngine:
    """Implements `worker.engine.interface.Engine`.

    While no engine runs everything waits. What a dead engine had not answered is asked of the next one, but for
    requests that were in hand at too many deaths, see `worker.engine_process.requests`.

    Args:
        path: of the engine's socket.
        terms: what the engine said of its model.
        slots: images that it may have in hand at a time.
        on_other_model: called when an engine comes with other terms: what this process keeps is of another model.
    """

    keeps_suspects_apart = False

    def __init__(self, path: Path, terms: EngineInfo, *, slots: int, on_other_model: Callable[[], None]) -> None:
        self.max_tokens = terms.max_tokens
        self._path, self._terms, self._slots = path, terms, slots
        self._on_other_model = on_other_model
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._closed = threading.Event()
        #: By number, in the order in which they were asked.
        self._requests: dict[int, Request] = {}
        self._last_number = 0
        self._state = State()
        self._here = threading.Event()
        self._heard_s = 0.0
        threading.Thread(target=self._serve, name="engine-link", daemon=True).start()

    @property
    def is_available(self) -> bool:
        """Whether an engine is connected, and not silent."""
        return self._here.is_set() and time.monotonic() - self._heard_s < SILENT_S

    @property
    def absence(self) -> str | None:
        """Why there is no engine to work with; None while there is."""
        if self.is_available:
            return None
        return "the engine is silent" if self._here.is_set() else "the engine is away"

    @property
    def waiting(self) -> int:
        """Images of all fronts that waited for the device when the engine last said so."""
        return self._state.waiting

    @property
    def busy_s(self) -> float:
        """What the engine's oldest batch had taken when it last said so; it watches over that itself."""
        return self._state.busy_s

    @property
    def batch_cost_s(self) -> tuple[float, float]:
        """As `Engine.batch_cost_s`, when the engine last said so."""
        return self._state.fixed_s, self._state.item_s

    @property
    def batch_limit(self) -> int:
        """As `Engine.batch_limit`, when the engine last said so."""
        return self._state.batch_limit

    def wait_until_here(self, timeout_s: float) -> bool:
        """Whether an engine was connected in time."""
        return self._here.wait(timeout_s)

    def count_tokens(self, prompts: Sequence[str], scope: CancelScope) -> list[int]:
        """As `Engine.count_tokens`."""
        if not prompts:
            return []
        request = CountRequest(list(prompts))
        self._ask(request)
        counts: list[int] = self._awaited(request.future, scope)
        return counts

    def embed_prompt(self, prompt: str, scope: CancelScope | None = None) -> Future[Array]:  # noqa: ARG002 - it can end no process of ours
        """As `Engine.embed_prompt`."""
        request = PromptRequest(prompt)
        self._ask(request)
        return request.future

    def embed_image(self, prepared: Prepared, queue: Queue, scope: CancelScope) -> BatchResult[Array]:
        """As `Engine.embed_image`."""
        request = ImageRequest(prepared, QUEUES.index(queue))
        if request.layout.size_bytes > self._terms.slot_bytes:
            raise JobFailed("model_error", "this image takes more memory than any that the engine knows.")
        self._ask(request)
        ride: BatchResult[Array] = self._awaited(request.future, scope)
        return ride

    def close(self) -> None:
        """End the connection; what still waits fails."""
        self._closed.set()
        with self._lock:
            link, requests = self._link, list(self._requests.values())
            self._requests.clear()
        if link is not None:
            link.end()
        for request in requests:
            request.fail(_ending())

    def _awaited(self, future: Future[Any], scope: CancelScope) -> Any:
        try:
            scope.on_cancel(future.cancel)
            return scope.result_of(future)
        except (Cancelled, CancelledError):
            raise Cancelled from None
        except TimeoutError:
            future.cancel()
            raise too_late() from None

    def _ask(self, request: Request) -> None:
        with self._lock:
            self._last_number += 1
            request.number = self._last_number
            if not (closed := self._closed.is_set()):
                self._requests[request.number] = request
                if self._link is not None:
                    self._link.send(request)
        if closed:
            request.fail(_ending())
        # By number, since a future that refers to its request, and so to itself, would keep its pixels for long.
        request.future.add_done_callback(partial(self._done, request.number))

    def _done(self, number: int, future: Future[Any]) -> None:
        """Somebody may have cancelled it."""
        if not future.cancelled():
            return
        with self._lock:
            request = self._requests.get(number)
            if request is not None and (self._link is None or not self._link.cancel(request)):
                del self._requests[number]

    def _serve(self) -> None:
        """Connect, ask for what waits, read answers until the engine ends; then again."""
        while not self._closed.is_set():
            try:
                self._meet_an_engine()
            except OSError:
                pass  # none is there
            except ProtocolError as nonsense:
                logger.error("the engine spoke nonsense: %s", nonsense)
            except Exception as error:  # this thread must go on
                logger.error("what the engine said cannot be used: %s at %s", type(error).__name__, place_of(error))
            self._closed.wait(RETRY_S)

    def _meet_an_engine(self) -> None:
        link = Link(self._path, self._slots)
        try:
            if link.terms != self._terms:
                logger.critical("the engine has come back with another model: this front begins anew")
                self._on_other_model()
                return
            self._adopt(link)
            for kind, number, payload in link.answers():
                self._take(link, kind, number, payload)
        finally:
            self._lose(link)

    def _adopt(self, link: Link) -> None:
        with self._lock:
            self._link = link
            for request in self._requests.values():
                link.send(request)
            waiting = len(self._requests)
        self._heard_s = time.monotonic()
        self._here.set()
        if waiting:
            logger.info("the engine is here: %d requests are asked again", waiting)

    def _lose(self, link: Link) -> None:
        link.close()
        given_up = []
        with self._lock:
            was_ours = self._link is link
            self._link, self._state = None, State()
            for request in list(self._requests.values()):
                if request.future.done():
                    del self._requests[request.number]
                elif link.blames(request):
                    del self._requests[request.number]
                    given_up.append(request)
        for request in given_up:
            request.give_up()
        self._here.clear()
        if was_ours and not self._closed.is_set():
            logger.warning("the engine has ended: %d requests wait for the next one", len(self._requests))

    def _take(self, link: Link, kind: int, number: int, payload: bytes) -> None:
        if kind == frames.STATE:
            self._heard_s = time.monotonic()
            self._state = State(*frames.STATE_FRAME.unpack(payload))
            return
        with self._lock:
            request = self._requests.pop(number, None)
            link.answered(number)
        if request is not None:
            request.resolve(kind, payload)


def _ending() -> JobFailed:
    return JobFailed("deadline_exceeded", "the worker is shutting down.")
