"""Waits for a message without taking it.

Redis can wait on several lists, but only by popping, and a popped message is lost with the process that popped it.
It can also move the tail of a list to the tail of the same list (``BLMOVE q q RIGHT RIGHT``), which changes nothing,
but blocks until there is something to move. One connection per queue does that while the worker is idle.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

logger = logging.getLogger(__name__)

#: Longest wait in one command. Below the connections' socket timeout, `worker.celery.BROKER_TIMEOUT_S`.
WAIT_S: Final = 5
#: A thread that failed waits before it tries again.
PAUSE_S: Final = 1.0


class Doorbell:
    """Rings once after each `listen`, as soon as one of the queues holds a message.

    Args:
        connect: makes a redis client; called once for each queue, in that queue's thread.
        queues: names of the lists.
        on_ring: called from another thread.
    """

    def __init__(self, connect: Callable[[], Any], queues: Sequence[str], on_ring: Callable[[], None]) -> None:
        self._connect = connect
        self._on_ring = on_ring
        self._closed = threading.Event()
        self._wanted = [threading.Event() for _ in queues]
        for queue, wanted in zip(queues, self._wanted, strict=True):
            threading.Thread(target=self._serve, args=(queue, wanted), name=f"doorbell-{queue}", daemon=True).start()

    def listen(self) -> None:
        """The queues were empty: ring when one no longer is."""
        for wanted in self._wanted:
            wanted.set()

    def close(self) -> None:
        """Ring no more; a thread that waits in Redis ends with its wait."""
        self._closed.set()
        self.listen()

    def _serve(self, queue: str, wanted: threading.Event) -> None:
        client: Any = None
        while not self._closed.is_set():
            wanted.wait()
            try:
                client = client or self._connect()
                found = client.execute_command("BLMOVE", queue, queue, "RIGHT", "RIGHT", WAIT_S)
            except Exception as error:  # the consumer looks by itself each second; this thread must go on
                logger.debug("doorbell of %s: %s", queue, type(error).__name__)
                self._closed.wait(PAUSE_S)
                continue
            if found is not None and not self._closed.is_set():
                wanted.clear()
                self._on_ring()
        if client is not None:
            client.close()
