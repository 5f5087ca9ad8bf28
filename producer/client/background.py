"""Runs the asyncio client's `AnswerListener` for the blocking client, in an event loop in a daemon thread.

So both clients wait in the same way, and a blocking client also needs only one connection to wait for thousands of
jobs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from producer.client.waiting import AnswerListener, Run
from producer.client.worker_look import WorkerLook
from producer.errors import BrokerUnavailable
from producer.operations.answers import Answer
from producer.operations.exchanges import Operation
from producer.operations.standing import KnownAnswers

if TYPE_CHECKING:
    from producer.broker.connections import AsyncLink, BlockingLink

logger = logging.getLogger(__name__)
T = TypeVar("T")


class BackgroundListener:
    """An `AnswerListener` that any thread may use; it starts at the first wait, and again after a fork."""

    def __init__(self, link: BlockingLink, make_link: Callable[[], AsyncLink], queue_prefix: str) -> None:
        self._read_elsewhere = _in_a_thread(link)
        self._make_link = make_link
        self._queue_prefix = queue_prefix
        self._lock = threading.Lock()
        self._running: _ListenerThread | None = None

    def wait(self, job_id: str) -> Future[Answer]:
        """Call `AnswerListener.wait` and return its future; cancelling the future ends the wait."""
        return self._call(lambda thread: thread.listener.wait(job_id))

    def finds_no_worker(self, job_id: str) -> Future[bool]:
        """Call `WorkerLook.finds_none` and return its future."""
        return self._call(lambda thread: thread.look.finds_none(job_id))

    def _call(self, call: Callable[[_ListenerThread], Coroutine[Any, Any, T]]) -> Future[T]:
        with self._lock:
            running = self._running
            if running is None or running.pid != os.getpid() or running.loop.is_closed():
                # A forked child process has no copy of its parent's thread and must not use the parent's sockets. A
                # closed loop cannot run the call.
                running = self._running = _ListenerThread(self._make_link, self._queue_prefix, self._read_elsewhere)
                running.finalizer = weakref.finalize(self, running.stop)
            # Hold the lock, because a wait that is scheduled after `close` would never end: its loop has stopped.
            return asyncio.run_coroutine_threadsafe(call(running), running.loop)

    def close(self) -> None:
        """Stop the thread; callers that still wait get `BrokerUnavailable`."""
        with self._lock:
            running, self._running = self._running, None
        if running is not None and running.finalizer is not None:
            running.finalizer()


def _in_a_thread(link: BlockingLink) -> Run:
    """Return a function that runs operations over the client's connections without keeping them open."""
    reference = weakref.ref(link)

    async def run(operation: Operation[KnownAnswers]) -> KnownAnswers:
        if (open_link := reference()) is None:
            raise BrokerUnavailable("the client was closed while a result was awaited.")
        return await asyncio.to_thread(open_link.run, operation)

    return run


class _ListenerThread:
    """A thread with its event loop, its connections and its listener."""

    def __init__(self, make_link: Callable[[], AsyncLink], queue_prefix: str, read_elsewhere: Run) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        self.finalizer: weakref.finalize[..., BackgroundListener] | None = None
        self._link = make_link()
        self.listener = AnswerListener(self._link, queue_prefix, read_elsewhere)
        self.look = WorkerLook(self._link, queue_prefix)
        self._thread = threading.Thread(target=self._serve, name="nameshot-answers", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    def stop(self) -> None:
        """Close everything and end the thread.

        Any thread may call this, even the listener's own if the garbage collector runs there.
        """
        if self.pid != os.getpid() or self.loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._end(), self.loop)
        if threading.current_thread() is not self._thread:
            # Closing sockets is quick; the timeout keeps the interpreter's exit from hanging.
            self._thread.join(timeout=2)

    async def _end(self) -> None:
        try:
            await self.listener.close()
            # Let the waiting callers receive the error before the loop stops.
            if waiting := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(waiting, timeout=1)
            await self._link.close()
        except Exception as error:  # no caller awaits this coroutine, so its error would be lost
            logger.debug("answers: closing the connections failed: %s", type(error).__name__)
        finally:
            self.loop.stop()
