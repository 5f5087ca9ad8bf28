"""A bound on what many jobs share: places, or the memory in which images are decoded."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from producer.errors import JobFailed
from worker.cancel_scope import Cancelled, CancelScope


class Budget:
    """Shares of an amount, given in the order in which they were asked for: a large one is not passed over for ever.

    A share that comes back wakes those that now have theirs, and nobody else: to wake all of fifty threads for each
    image took Python's lock as long as decoding did.

    Args:
        amount: what there is to share.
        refusal: the sentence for a job that got no share in time.
    """

    def __init__(self, amount: int, refusal: str) -> None:
        self._left = amount
        self._amount = amount
        self._refusal = refusal
        self._waiting = deque[tuple[int, Future[None]]]()
        self._lock = threading.Lock()

    @contextmanager
    def reserve(self, share: int, scope: CancelScope) -> Iterator[None]:
        """Hold a share (all there is, if it is larger), waiting for it while the scope lasts.

        Raises:
            JobFailed: ``deadline_exceeded``.
            Cancelled: somebody has cancelled the scope.
        """
        scope.check()
        share = min(share, self._amount)
        turn: Future[None] = Future()
        with self._lock:
            self._waiting.append((share, turn))
        self._give(0)
        try:
            scope.result_of(turn)
        except (TimeoutError, Cancelled) as error:
            # Given at this very moment, or never: who cancels first decides.
            self._give(0 if turn.cancel() else share)
            if isinstance(error, Cancelled):
                raise
            raise JobFailed("deadline_exceeded", self._refusal) from None
        try:
            yield
        finally:
            self._give(share)

    def _give(self, returned: int) -> None:
        """Take a share back, and give what there is to the first in line."""
        given = []
        with self._lock:
            self._left += returned
            while self._waiting:
                share, turn = self._waiting[0]
                if not turn.cancelled():
                    if share > self._left:
                        break
                    if turn.set_running_or_notify_cancel():
                        self._left -= share
                        given.append(turn)
                self._waiting.popleft()
        for turn in given:
            turn.set_result(None)
