"""The connections of an `AsyncClient`: they belong to an event loop, and a client may be used in several.

``asyncio.run`` twice, a test's loop after another's, a loop in each of two threads: each has its own connections,
which end when the client is closed there, or when the loop ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TypeVar

from producer.broker.connections import MAX_ASYNC_CONNECTIONS, AsyncLink
from producer.client.configuration import Configuration
from producer.operations.answers import Answer
from producer.operations.exchanges import Operation
from producer.operations.waiting import AnswerListener

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _InLoop:
    """What one event loop has."""

    link: AsyncLink
    listener: AnswerListener
    writing: asyncio.Semaphore
    end: AsyncGenerator[None, None]


class LinkOfEachLoop:
    """An `AsyncLink` and an `AnswerListener` for each event loop that asks for them."""

    def __init__(self, config: Configuration) -> None:
        self._config = config
        self._in_loops: dict[asyncio.AbstractEventLoop, _InLoop] = {}
        self._make()  # for its errors

    async def run(self, operation: Operation[T]) -> T:
        """As `AsyncLink.run`."""
        return await (await self._here()).link.run(operation)

    async def wait(self, job_id: str) -> Answer:
        """As `AnswerListener.wait`."""
        return await (await self._here()).listener.wait(job_id)

    async def writing(self) -> asyncio.Semaphore:
        """Held to write and send: a thousand tasks that begin at once would write all messages before one is sent."""
        return (await self._here()).writing

    async def close(self) -> None:
        """Close what this loop has; what others have is closed there, soon."""
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
            await anext(here.end)  # from now on the loop ends it as it ends itself
        return here

    def _make(self) -> _InLoop:
        link = AsyncLink(self._config.broker, self._config.results)
        listener = AnswerListener(link, self._config.queue_prefix)
        return _InLoop(link, listener, asyncio.Semaphore(MAX_ASYNC_CONNECTIONS), _until_the_end(link, listener))


async def _until_the_end(link: AsyncLink, listener: AnswerListener) -> AsyncGenerator[None, None]:
    """An event loop closes each generator that was begun in it, before it ends or once the generator is dropped."""
    try:
        yield
    finally:
        await listener.close()
        await link.close()
