"""Waits for a message, wakes one of those who wait, and loses none.

Redis can wait on several lists, but only by popping, and a popped message is lost with the process that popped it. So a
waiting worker has Redis move the message that wakes it to a second list of the same queue, which belongs to nobody
(`producer.contract.rung_name`): one message wakes one worker. Every worker looks into both lists whenever it takes
(`worker.delivery.scripts.TAKE`), so whatever becomes of the one that was woken, the next that looks finds the message.
One connection per queue waits while the worker is idle.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import redis

from producer.contract import rung_name
from worker.delivery.scripts import HAND_ON

logger = logging.getLogger(__name__)

#: Longest wait in one command. Below the connections' socket timeout, `worker.jobs.celery_settings.BROKER_TIMEOUT_S`.
WAIT_S: Final = 5
#: How often a worker looks for messages while Redis has no memory left to wake it. Nothing new can be sent meanwhile.
LOOK_S: Final = 0.25
#: A thread that failed waits before it tries again.
PAUSE_S: Final = 1.0
#: Whoever has not come to the door by then is busy: let another one be woken. An idle worker needs 1 ms.
ANSWER_S: Final = 0.1


class Doorbell:
    """Rings at most once after each `listen`, for a queue that held a message.

    Args:
        client: a redis client with connections of its own, which `close` cuts; it must not try again by itself.
        queues: names of the lists.
        on_ring: called from another thread; `answer` is to follow.
    """

    def __init__(self, client: Any, queues: Sequence[str], on_ring: Callable[[], None]) -> None:
        self._client = client
        self._on_ring = on_ring
        self._closed = threading.Event()
        self._lock = threading.Lock()
        #: The queues whose messages may ring; none while the worker is busy.
        self._awaited: frozenset[str] = frozenset()
        self._rung: str | None = None
        self._answered = threading.Event()
        self._wanted = {queue: threading.Event() for queue in queues}
        for queue, wanted in self._wanted.items():
            threading.Thread(target=self._serve, args=(queue, wanted), name=f"doorbell-{queue}", daemon=True).start()

    def listen(self, queues: Collection[str] | None = None) -> None:
        """These queues, or all of them, were empty: ring when one no longer is."""
        with self._lock:
            self._awaited = frozenset(self._wanted if queues is None else queues) & self._wanted.keys()
            for queue in self._awaited:
                self._wanted[queue].set()

    def answer(self) -> str | None:
        """The worker is about to look: do not ring. Returns the queue for which it rang, to be looked into first."""
        with self._lock:
            self._awaited = frozenset()
            rung, self._rung = self._rung, None
            self._answered.set()
        return rung

    def close(self) -> None:
        """Ring no more. Redis sees at once that nobody waits here."""
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
                    # What rang last goes back to the front of the queue, which wakes another worker that waits.
                    self._client.eval(HAND_ON, 2, rung_name(queue), queue)
            except redis.OutOfMemoryError:  # Redis moves nothing while it is full, but it can be asked
                if self._client.exists(queue):
                    self._wakes(queue, wanted)
                self._closed.wait(LOOK_S)
            except Exception as error:  # the consumer looks by itself each second; this thread must go on
                logger.debug("doorbell of %s: %s", queue, type(error).__name__)
                self._closed.wait(PAUSE_S)

    def _wakes(self, queue: str, wanted: threading.Event) -> bool:
        """Ring, if the worker is idle; returns whether it then came."""
        with self._lock:
            wanted.clear()
            if queue not in self._awaited or self._closed.is_set():
                return False
            self._awaited = frozenset()
            self._rung = queue
            self._answered.clear()
        self._on_ring()
        return self._answered.wait(ANSWER_S)
