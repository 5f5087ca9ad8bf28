"""Ask Redis once for all callers who want to know the same within a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

#: What was read serves all callers for this long.
FRESH_S: Final = 1.0


class Fresh(Generic[T]):
    """The result of a question, asked anew when it is older than `FRESH_S`. A failure is shared too."""

    def __init__(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._ask = ask
        self._task: asyncio.Task[T] | None = None
        self._asked_s = 0.0

    async def get(self) -> T:
        """Return the result, or raise the error."""
        now_s = time.monotonic()
        if self._task is None or (self._task.done() and now_s - self._asked_s >= FRESH_S):
            self._asked_s = now_s
            self._task = asyncio.create_task(self._ask())
            # The callers may all have left before it fails; asyncio would log an exception that is never retrieved.
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._task)

    async def close(self) -> None:
        """End a question that is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
