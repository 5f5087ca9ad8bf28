"""Run Lua scripts by their digests, so that a server receives a script's text only when it does not have the script.

A server forgets all scripts when it restarts and at SCRIPT FLUSH, and a replica that takes over may never have had any.
A server without the script replies NOSCRIPT and runs nothing. The caller then sends the text, which the server stores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import NoScriptError


@lru_cache(None)  # all scripts are constants
def digest(script: str) -> str:
    """Return the name by which a server knows a script."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


class ScriptingRedis(redis.Redis):
    """A client of redis-py that runs scripts by their digests."""

    def eval(self, script: str, numkeys: int, *keys_and_args: Any) -> Any:
        """Run a script."""
        try:
            return self.evalsha(digest(script), numkeys, *keys_and_args)
        except NoScriptError:
            return super().eval(script, numkeys, *keys_and_args)


class AsyncScriptingRedis(redis.asyncio.Redis):
    """An asyncio client of redis-py that runs scripts by their digests."""

    async def eval(self, script: str, numkeys: int, *keys_and_args: Any) -> Any:
        """Run a script."""
        try:
            return await self.evalsha(digest(script), numkeys, *keys_and_args)
        except NoScriptError:
            return await super().eval(script, numkeys, *keys_and_args)


def eval_all(client: redis.Redis, script: str, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Run a script once for each of the calls, in one round trip if the server has the script; return the replies.

    Args:
        calls: for each call the number of keys, the keys and the arguments.

    Raises:
        RedisError: the first error, once all calls have run.
    """
    replies: list[Any] = [None] * len(calls)
    left = list(range(len(calls)))
    while left:
        with client.pipeline(transaction=False) as pipe:
            for number in left:
                pipe.evalsha(digest(script), *calls[number])
            for number, reply in zip(left, pipe.execute(raise_on_error=False), strict=True):
                replies[number] = reply
        left = [number for number in left if isinstance(replies[number], NoScriptError)]
        if left:
            client.script_load(script)
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies
