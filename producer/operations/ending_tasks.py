"""The end of tasks, for certain."""

from __future__ import annotations

import asyncio


async def end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended: on Python 3.11 redis-py may miss a cancellation while it sends.

    Being cancelled meanwhile waits until they have ended, so that nothing of a session outlives it.
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
            task.exception()  # seen: whoever ended them knows why
    if cancelled:
        raise asyncio.CancelledError
