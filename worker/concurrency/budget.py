"""A bounded amount that jobs share: places, or the memory in which images are decoded."""

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

    A request for a large share does not starve: once its turn has come, the budget grants no share that would make it
    wait longer. A returned share wakes only the threads that now get theirs: waking all fifty threads for each image
    would hold Python's lock for as long as decoding takes.

    Args:
        amount: the total amount, or the most that each queue may hold.
        refusal: the error message for a job that got no share in time.
    """

    def __init__(self, amount: int | Limits, refusal: str) -> None:
        self._limits = all_alike(amount) if isinstance(amount, int) else amount
        self._refusal = refusal
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
        """Hold a share (at most what the queue may hold) within this context, waiting for it while the scope lasts.

        Raises:
            JobFailed: ``deadline_exceeded``, since no share came free in time.
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
        """Take a share that the queue may hold; the caller must return it with `give_back`.

        Raises:
            TimeoutError: no share came free while the scope lasted.
            Cancelled: the scope was cancelled.
        """
        turn: Future[None] = Future()
        with self._lock:
            self._waiting[queue].append((share, turn))
        self.give_back(0, queue)
        try:
            scope.result_of(turn)
        except (TimeoutError, Cancelled):
            # Another thread may grant the share at this moment; then the future cannot be cancelled any more.
            self.give_back(0 if turn.cancel() else share, queue)
            raise

    def give_back(self, share: int, queue: Queue) -> None:
        """Return a queue's share, and grant what is free to the requests whose turn it is."""
        given: list[Future[None]] = []
        with self._lock:
            self._held[queue] -= share
            while (turn := self._next_given()) is not None:
                given.append(turn)
        for turn in given:
            turn.set_result(None)

    def _next_given(self) -> Future[None] | None:
        """Grant the next share that is available and return its future; None if no share can be granted."""
        passed = -1  # the rank of the most important queue with a waiting request that must not be delayed
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
