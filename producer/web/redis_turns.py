"""Let requests use Redis by turns: a burst of requests waits for its turns, and only a silent Redis makes them fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from producer.broker.connections import MAX_ASYNC_CONNECTIONS
from producer.errors import BrokerUnavailable

#: The listener of answers needs connections too.
_AT_ONCE: Final = MAX_ASYNC_CONNECTIONS - 8
#: No request waits longer for a Redis that does not reply.
REDIS_TIMEOUT_S: Final = 3.0


class RedisTurns:
    """The turns of one process."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._replied_s = 0.0

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Wait for a turn, which ends with the block.

        Raises:
            BrokerUnavailable: Redis did not end any other turn, or this one, for `REDIS_TIMEOUT_S`.
        """
        await self._begin()
        try:
            async with asyncio.timeout(REDIS_TIMEOUT_S):
                yield
            self._replied_s = asyncio.get_running_loop().time()
        except TimeoutError:
            raise BrokerUnavailable("Redis did not reply in time.", may_pass=True, may_have_run=True) from None
        finally:
            self._free.release()

    async def _begin(self) -> None:
        if not self._free.locked():
            await self._free.acquire()
            return
        began_s = asyncio.get_running_loop().time()
        beginning = asyncio.ensure_future(self._free.acquire())
        try:
            while not (await asyncio.wait([beginning], timeout=REDIS_TIMEOUT_S))[0]:
                now_s = asyncio.get_running_loop().time()
                if now_s - max(began_s, self._replied_s) >= REDIS_TIMEOUT_S:
                    raise BrokerUnavailable("Redis replied to no request for seconds.", may_pass=True)
        except BaseException:
            if not beginning.cancel() and not beginning.cancelled():
                self._free.release()  # the turn had come when the caller left
            raise
