"""A bound on what many jobs share: places, or the memory in which images are decoded."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from producer.contract import Queue
from producer.errors import JobFailed
from worker.concurrency.cancel_scope import Cancelled, CancelScope
from worker.concurrency.fairness import FairOrder
from worker.concurrency.shares import RANKS, Limits, all_alike


class Budget:
    """Shares of an amount, given to the queues by their weights, and in one queue in the order of asking.

    A large share is not passed over for ever: while the one whose turn it is waits, nothing is given that would make it
    wait longer. A share that comes back wakes those that now have theirs, and no others: to wake all of fifty threads
    for each image took Python's lock as long as decoding did.

    Args:
        amount: what there is to share, or how much of it each queue may hold.
        refusal: the sentence for a job that got no share in time.
    """

    def __init__(self, amount: int | Limits, refusal: str) -> None:
        self._limits = all_alike(amount) if isinstance(amount, int) else amount
        self._refusal = refusal
        self._held: dict[Queue, int] = dict.fromkeys(RANKS, 0)
        self._waiting: dict[Queue, deque[tuple[int, Future[None]]]] = {queue: deque() for queue in RANKS}
        self._turns = FairOrder()
        self._order = self._turns.next()
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """How many wait for a share."""
        return sum(map(len, self._waiting.values()))

    @contextmanager
    def reserve(self, share: int, scope: CancelScope, queue: Queue = "default") -> Iterator[None]:
        """Hold a share (all that the queue may hold, if it is larger), waiting for it while the scope lasts.

        Raises:
            JobFailed: ``deadline_exceeded``.
            Cancelled: the scope was cancelled.
        """
        scope.check()
        share = min(share, self._limits.of(queue))
        try:
            self.take(share, scope, queue)
        except TimeoutError:
            raise JobFailed("deadline_exceeded", self._refusal) from None
        try:
            yield
        finally:
            self.give_back(share, queue)

    def take(self, share: int, scope: CancelScope, queue: Queue) -> None:
        """Take a share that the queue may hold; `give_back` is to follow.

        Raises:
            TimeoutError: it did not come free while the scope lasted.
            Cancelled: the scope was cancelled.
        """
        turn: Future[None] = Future()
        with self._lock:
            self._waiting[queue].append((share, turn))
        self.give_back(0, queue)
        try:
            scope.result_of(turn)
        except (TimeoutError, Cancelled):
            # Given at this very moment, or never: who cancels first decides.
            self.give_back(0 if turn.cancel() else share, queue)
            raise

    def give_back(self, share: int, queue: Queue) -> None:
        """Return a queue's share, and give what there is to those whose turn it is."""
        given: list[Future[None]] = []
        with self._lock:
            self._held[queue] -= share
            while (turn := self._next_given()) is not None:
                given.append(turn)
        for turn in given:
            turn.set_result(None)

    def _next_given(self) -> Future[None] | None:
        """Give the next share that can be given; None when there is none."""
        passed = -1  # the most important queue for which somebody waits who must not wait longer
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
                return self._next_given()
            self._held[queue] += share
            if passed < 0:
                self._order = self._turns.next()
            return turn
        return None
