"""Cancel asyncio tasks reliably."""

from __future__ import annotations

import asyncio


async def end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel tasks repeatedly until they have ended: on Python 3.11 redis-py may miss a cancellation while it sends.

    If the caller is cancelled, wait for the tasks nevertheless, so that no task outlives its session.
    """
    cancelled = False
    while left := {task for task in tasks if not task.done()}:
        for task in left:
            task.cancel()
        try:
            await asyncio.wait(left, timeout=0.05)
        except asyncio.CancelledError:
            cancelled = True
    for task in tasks:
        if not task.cancelled():
            task.exception()  # asyncio logs an exception that is never retrieved; the caller knows why the tasks ended
    if cancelled:
        raise asyncio.CancelledError
