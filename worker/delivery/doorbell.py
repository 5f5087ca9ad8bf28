"""Blocks until a queue holds a message, wakes one idle worker per message, and never loses a message.

A client can wait for a list's next message only with a command that also removes it, and a process that dies with a
removed message loses it. So an idle worker has Redis move the message that wakes it to a second list of the same queue,
which belongs to no worker (`producer.contract.names.rung_name`): one message wakes one worker. Every worker takes
messages from both lists (`worker.delivery.scripts.TAKE`), so if the woken worker dies, another one finds the message.
While the worker is idle, one connection per queue blocks.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import redis

from producer.contract.names import rung_name
from worker.delivery.scripts import HAND_ON

logger = logging.getLogger(__name__)

#: One command blocks for at most this long, which is below the connections' socket timeout,
#: `worker.jobs.celery_settings.BROKER_TIMEOUT_S`.
WAIT_S: Final = 5
#: While Redis is out of memory it cannot move a message to wake a worker, so the worker polls at this interval. Clients
#: cannot send anything new during that time.
POLL_S: Final = 0.25
#: A thread pauses for this long after an error, so that it does not retry an unreachable broker in a tight loop.
PAUSE_S: Final = 1.0
#: A worker that has not called `Doorbell.respond` this long after `on_ring` is busy, so its doorbell moves the message
#: back, to wake another worker. An idle worker responds within 1 ms.
RESPOND_S: Final = 0.1


class Doorbell:
    """Calls `on_ring` at most once after each `listen`, when a queue holds a message.

    Args:
        client: a Redis client with its own connections, which `close` disconnects; it must not retry commands.
        queues: the names of the lists.
        on_ring: called from another thread; the worker then calls `respond`.
    """

    def __init__(self, client: Any, queues: Sequence[str], on_ring: Callable[[], None]) -> None:
        self._client = client
        self._on_ring = on_ring
        self._closed = threading.Event()
        self._lock = threading.Lock()
        #: The queues that may ring; empty while the worker is busy.
        self._awaited: frozenset[str] = frozenset()
        self._rung: str | None = None
        self._responded = threading.Event()
        self._wanted = {queue: threading.Event() for queue in queues}
        for queue, wanted in self._wanted.items():
            threading.Thread(target=self._serve, args=(queue, wanted), name=f"doorbell-{queue}", daemon=True).start()

    def listen(self, queues: Collection[str] | None = None) -> None:
        """Call `on_ring` when one of these queues, which the worker found empty, holds a message.

        Args:
            queues: the names of the lists; None stands for all queues.
        """
        with self._lock:
            self._awaited = frozenset(self._wanted if queues is None else queues) & self._wanted.keys()
            for queue in self._awaited:
                self._wanted[queue].set()

    def respond(self) -> str | None:
        """Stop ringing, since the worker is about to take a message; return the queue that rang, to be tried first."""
        with self._lock:
            self._awaited = frozenset()
            rung, self._rung = self._rung, None
            self._responded.set()
        return rung

    def close(self) -> None:
        """Stop ringing and disconnect, so that Redis no longer counts this worker as waiting."""
        self._closed.set()
        for wanted in self._wanted.values():
            wanted.set()
        self._client.connection_pool.disconnect()

    def _serve(self, queue: str, wanted: threading.Event) -> None:
        while True:
            wanted.wait()
            if self._closed.is_set():
                return
            try:
                moved = ("BLMOVE", queue, rung_name(queue), "RIGHT", "LEFT", WAIT_S)
                if self._client.execute_command(*moved) is not None and not self._wakes(queue, wanted):
                    # The newest rung message goes back to the front of its queue, where it wakes another idle worker.
                    self._client.eval(HAND_ON, 2, rung_name(queue), queue)
            except redis.OutOfMemoryError:  # a full Redis refuses to move messages but still serves reads
                if self._client.exists(queue):
                    self._wakes(queue, wanted)
                self._closed.wait(POLL_S)
            except Exception as error:  # this thread must keep running; meanwhile the consumer polls each second
                logger.debug("doorbell of %s: %s", queue, type(error).__name__)
                self._closed.wait(PAUSE_S)

    def _wakes(self, queue: str, wanted: threading.Event) -> bool:
        """Ring if the worker is idle; return whether it responded in time."""
        with self._lock:
            wanted.clear()
            if queue not in self._awaited or self._closed.is_set():
                return False
            self._awaited = frozenset()
            self._rung = queue
            self._responded.clear()
        self._on_ring()
        return self._responded.wait(RESPOND_S)
