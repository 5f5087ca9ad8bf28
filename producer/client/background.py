"""The answer listener for callers that block: its event loop runs on one daemon thread.

So both clients wait in one way, and a blocking client's thousands of awaited jobs still need one connection.
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

from producer.operations.answers import Answer
from producer.operations.waiting import AnswerListener

if TYPE_CHECKING:
    from producer.broker.connections import AsyncLink

logger = logging.getLogger(__name__)


class BackgroundListener:
    """Starts at the first wait, again after a fork; safe to share between threads."""

    def __init__(self, make_link: Callable[[], AsyncLink], queue_prefix: str) -> None:
        self._make_link = make_link
        self._queue_prefix = queue_prefix
        self._lock = threading.Lock()
        self._running: _Running | None = None

    def wait(self, job_id: str) -> Future[Answer]:
        """As `AnswerListener.wait`; cancel the future to stop waiting."""
        with self._lock:
            running = self._running
            if running is None or running.pid != os.getpid() or running.loop.is_closed():
                # A forked child has neither the thread nor a right to its sockets; a loop that ended serves no one.
                running = self._running = _Running(self._make_link, self._queue_prefix)
                running.finalizer = weakref.finalize(self, running.stop)
            # Before the lock is free: what is scheduled after a `close` waits on a loop that has ended.
            return asyncio.run_coroutine_threadsafe(running.listener.wait(job_id), running.loop)

    def close(self) -> None:
        """Stop the thread; whoever still waits gets `BrokerUnavailable`."""
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
        """Close everything and end the thread, from any thread: garbage is collected on this one too."""
        if self.pid != os.getpid() or self.loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._end(), self.loop)
        if threading.current_thread() is not self._thread:
            # Closing sockets takes no time; a bound so that the end of the interpreter never hangs.
            self._thread.join(timeout=2)

    async def _end(self) -> None:
        try:
            await self.listener.close()
            # Whoever waited gets to see it before the loop stops.
            if waiting := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(waiting, timeout=1)
            await self._link.close()
        except Exception as error:  # nobody waits for the end of this, so nobody else would hear of it
            logger.debug("answers: closing the connections failed: %s", type(error).__name__)
        finally:
            self.loop.stop()
