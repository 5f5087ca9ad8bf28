"""The answer listener of the blocking client, whose event loop runs in one daemon thread.

So both clients wait in the same way, and a blocking client needs one connection for thousands of awaited jobs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from producer.client.waiting import AnswerListener
from producer.operations.answers import Answer

if TYPE_CHECKING:
    from producer.broker.connections import AsyncLink

logger = logging.getLogger(__name__)


class BackgroundListener:
    """An `AnswerListener` for threads: starts at the first wait, and again after a fork. Thread-safe."""

    def __init__(self, make_link: Callable[[], AsyncLink], queue_prefix: str) -> None:
        self._make_link = make_link
        self._queue_prefix = queue_prefix
        self._lock = threading.Lock()
        self._running: _Running | None = None

    def wait(self, job_id: str) -> Future[Answer]:
        """Return a future of `AnswerListener.wait`; cancel it to stop waiting."""
        with self._lock:
            running = self._running
            if running is None or running.pid != os.getpid() or running.loop.is_closed():
                # A forked child has no copy of the thread and must not use its sockets; a closed loop serves nothing.
                running = self._running = _Running(self._make_link, self._queue_prefix)
                running.finalizer = weakref.finalize(self, running.stop)
            # Under the lock: scheduled after a `close`, it would wait on a loop that has ended.
            return asyncio.run_coroutine_threadsafe(running.listener.wait(job_id), running.loop)

    def close(self) -> None:
        """Stop the thread; callers that still wait get `BrokerUnavailable`."""
        with self._lock:
            running, self._running = self._running, None
        if running is not None and running.finalizer is not None:
            running.finalizer()


class _Running:
    """One thread with its loop, its connections and its listener."""

    def __init__(self, make_link: Callable[[], AsyncLink], queue_prefix: str) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        self.finalizer: weakref.finalize[..., BackgroundListener] | None = None
        self._link = make_link()
        self.listener = AnswerListener(self._link, queue_prefix)
        self._thread = threading.Thread(target=self._serve, name="nameshot-answers", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    def stop(self) -> None:
        """Close everything and end the thread. Any thread may call it, this one too when it collects garbage."""
        if self.pid != os.getpid() or self.loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._end(), self.loop)
        if threading.current_thread() is not self._thread:
            # Closing sockets is quick; the bound keeps interpreter shutdown from hanging.
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
