"""The connections of an `AsyncClient`: one set for each event loop that uses the client.

A program may call ``asyncio.run`` twice, or run a loop in each of two threads. The connections of a loop close when
the client is closed in that loop, or when the loop ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TypeVar

from producer.broker.connections import MAX_ASYNC_CONNECTIONS, AsyncLink
from producer.client.configuration import Configuration
from producer.client.waiting import AnswerListener
from producer.client.worker_look import WorkerLook
from producer.operations.answers import Answer
from producer.operations.exchanges import Operation

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _InLoop:
    """The connections of one event loop."""

    link: AsyncLink
    listener: AnswerListener
    look: WorkerLook
    writing: asyncio.Semaphore
    end: AsyncGenerator[None, None]


class LinkOfEachLoop:
    """Holds an `AsyncLink` and an `AnswerListener` for each event loop that uses the client."""

    def __init__(self, config: Configuration) -> None:
        self._config = config
        self._in_loops: dict[asyncio.AbstractEventLoop, _InLoop] = {}
        self._make()  # so that invalid settings fail here

    async def run(self, operation: Operation[T]) -> T:
        """Run an operation over this loop's connections, as `AsyncLink.run` does."""
        return await (await self._here()).link.run(operation)

    async def wait(self, job_id: str) -> Answer:
        """Wait for an answer with this loop's listener, as `AnswerListener.wait` does."""
        return await (await self._here()).listener.wait(job_id)

    async def finds_no_worker(self, job_id: str) -> bool:
        """Return True only if it is certain that this job's queue has no worker, as `WorkerLook.finds_none` does."""
        return await (await self._here()).look.finds_none(job_id)

    async def writing(self) -> asyncio.Semaphore:
        """Return the semaphore that a task holds while it writes and sends a message.

        Without it, a thousand tasks that start at once would write all their messages before sending the first."""
        return (await self._here()).writing

    async def close(self) -> None:
        """Close this loop's connections, and forget those of the other loops, which those loops then close."""
        here = self._in_loops.pop(asyncio.get_running_loop(), None)
        self._in_loops.clear()
        if here is not None:
            await here.end.aclose()

    async def _here(self) -> _InLoop:
        loop = asyncio.get_running_loop()
        if (here := self._in_loops.get(loop)) is None:
            for closed in [other for other in self._in_loops if other.is_closed()]:
                self._in_loops.pop(closed, None)
            here = self._in_loops[loop] = self._make()
            await anext(here.end)  # from now on the loop closes this generator when the loop shuts down
        return here

    def _make(self) -> _InLoop:
        link = AsyncLink(self._config.broker, self._config.results)
        listener = AnswerListener(link, self._config.queue_prefix)
        look = WorkerLook(link, self._config.queue_prefix)
        return _InLoop(link, listener, look, asyncio.Semaphore(MAX_ASYNC_CONNECTIONS), _until_the_end(link, listener))


async def _until_the_end(link: AsyncLink, listener: AnswerListener) -> AsyncGenerator[None, None]:
    """Close the connections when the event loop closes this generator.

    The loop closes it when the loop shuts down, or when nothing refers to the generator any more.
    """
    try:
        yield
    finally:
        await listener.close()
        await link.close()
