"""A bounded amount that jobs share, such as places for images in flight, or bytes of memory for decoding.

A job's clock is paused while the job waits for a share, because it then waits only for other images of its own worker,
and each holder of a share has a running clock of its own. So a burst of large images waits instead of failing.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from producer.contract.names import Queue
from producer.errors import JobFailed
from worker.concurrency.cancel_scope import Cancelled, CancelScope
from worker.concurrency.shares import RANKS, WEIGHTS, Limits, all_alike
from worker.concurrency.turns import Turns


class Budget:
    """Grants shares of an amount to queues by weight, and within a queue in the order of requests.

    A request for a large share does not starve: once its turn has come, the budget grants no share that would delay it
    further. When a share is returned, the budget wakes only the threads whose requests it grants, because waking all
    waiting threads, perhaps fifty, would hold Python's global lock for as long as decoding an image takes.

    Args:
        amount: the total amount, all of which any queue may hold, or the queues' limits.
    """

    def __init__(self, amount: int | Limits) -> None:
        self._limits = all_alike(amount) if isinstance(amount, int) else amount
        self._held: dict[Queue, int] = dict.fromkeys(RANKS, 0)
        self._waiting: dict[Queue, deque[tuple[int, Future[None]]]] = {queue: deque() for queue in RANKS}
        self._turns = Turns(WEIGHTS)
        self._order = self._turns.next()
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """The number of requests that wait for a share."""
        return sum(map(len, self._waiting.values()))

    @contextmanager
    def reserve(self, share: int, scope: CancelScope, queue: Queue = "default") -> Iterator[None]:
        """Wait for a share with the scope's clock paused, then hold the share within this context.

        Args:
            share: the share's size; a share above the queue's limit is reduced to that limit.

        Raises:
            JobFailed: ``deadline_exceeded``: the scope's deadline passed before the wait began.
            Cancelled: the scope was cancelled.
        """
        scope.check()
        if scope.is_over:
            raise JobFailed("deadline_exceeded")
        share = min(share, self._limits.of(queue))
        resume = scope.pause_clock()
        try:
            self.take(share, scope, queue)
        finally:
            resume()
        try:
            yield
        finally:
            self.give_back(share, queue)

    def take(self, share: int, scope: CancelScope, queue: Queue) -> None:
        """Wait for a share within the queue's limit, with the scope's clock running.

        The caller must return the share with `give_back`.

        Raises:
            TimeoutError: the share was not granted before the scope's deadline.
            Cancelled: the scope was cancelled.
        """
        turn: Future[None] = Future()
        with self._lock:
            self._waiting[queue].append((share, turn))
        self.give_back(0, queue)
        try:
            scope.result_of(turn)
        except (TimeoutError, Cancelled):
            # If another thread has granted the share by now, the future can no longer be cancelled.
            self.give_back(0 if turn.cancel() else share, queue)
            raise

    def give_back(self, share: int, queue: Queue) -> None:
        """Free a share that the queue holds (0 for none), and grant the requests that fit now and whose turn it is."""
        granted: list[Future[None]] = []
        with self._lock:
            self._held[queue] -= share
            while (turn := self._grant_next()) is not None:
                granted.append(turn)
        for turn in granted:
            turn.set_result(None)

    def _grant_next(self) -> Future[None] | None:
        """Grant the next request that fits and return its future; None if no request fits."""
        # Queues up to this rank get nothing now, so that they do not delay a request that did not fit.
        passed = -1
        for queue in self._order:
            waiting = self._waiting[queue]
            while waiting and waiting[0][1].cancelled():
                waiting.popleft()
            if not waiting or RANKS.index(queue) <= passed:
                continue
            share, turn = waiting[0]
            barrier = self._limits.barrier(self._held, queue, share)
            if barrier is not None:
                passed = max(passed, RANKS.index(barrier))
                continue
            waiting.popleft()
            if not turn.set_running_or_notify_cancel():
                return self._grant_next()
            self._held[queue] += share
            if passed < 0:
                self._order = self._turns.next()
            return turn
        return None
