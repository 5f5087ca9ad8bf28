"""Redis connections with short timeouts, and every failure as one sentence.

`BlockingLink` and `AsyncLink` drive the operations of `producer.operations`. Importing this module loads redis-py,
so clients import it when they are made.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, TypeVar

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterError,
    InvalidResponse,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from producer.errors import BrokerUnavailable, SettingsError
from producer.operations import Call, Operation, Together
from producer.redis_urls import Endpoint

T = TypeVar("T")

#: Two tries of both, on a connection that proves broken or mute and on a fresh one, take less than the 3 s in which
#: a dead broker must be reported.
CONNECT_TIMEOUT_S: Final = 1.0
READ_TIMEOUT_S: Final = 1.1
#: Connections of one `AsyncLink`: thousands of tasks may call at once, and Redis serves one command at a time.
MAX_ASYNC_CONNECTIONS: Final = 32

#: The server answered: it understood the command and did nothing.
_REFUSALS: Final = (ResponseError, AuthenticationError, AuthorizationError, BusyLoadingError, InvalidResponse)


class BlockingLink:
    """Runs operations in the calling thread; any number of threads may share it."""

    def __init__(self, broker: Endpoint, results: Endpoint) -> None:
        self._endpoints = {"broker": broker, "results": results}
        self._servers = {name: _blocking(endpoint) for name, endpoint in self._endpoints.items()}

    def run(self, operation: Operation[T]) -> T:
        """The operation's result; raises `BrokerUnavailable`, and what the operation raises."""
        try:
            call = next(operation)
            while True:
                call = operation.send(self._execute(call))
        except StopIteration as finished:
            result: T = finished.value
            return result

    def _execute(self, call: Call | Together) -> Any:
        attempts = Attempts(call, self._endpoints[call.server])
        while True:
            try:
                if isinstance(call, Call):
                    return self._servers[call.server].execute_command(*call.command)
                with self._servers[call.server].pipeline(transaction=True) as pipe:
                    for command in call.commands:
                        pipe.execute_command(*command)
                    return _of_our_kind(pipe.execute(raise_on_error=False))
            except RedisError as error:
                attempts.failed(error)

    def close(self) -> None:
        """Close all connections."""
        for server in self._servers.values():
            server.close()


class AsyncLink:
    """Runs operations in one event loop; any number of its tasks may share it."""

    def __init__(self, broker: Endpoint, results: Endpoint) -> None:
        self._endpoints = {"broker": broker, "results": results}
        self._servers = {name: _asynchronous(endpoint) for name, endpoint in self._endpoints.items()}
        self._turn = asyncio.Semaphore(MAX_ASYNC_CONNECTIONS)

    async def run(self, operation: Operation[T]) -> T:
        """The operation's result; raises `BrokerUnavailable`, and what the operation raises."""
        try:
            call = next(operation)
            while True:
                call = operation.send(await self._execute(call))
        except StopIteration as finished:
            result: T = finished.value
            return result

    async def _execute(self, call: Call | Together) -> Any:
        attempts = Attempts(call, self._endpoints[call.server])
        task = asyncio.current_task()
        cancellations = task.cancelling() if task else 0
        while True:
            try:
                async with self._turn:
                    reply = await _asked(self._servers[call.server], call)
            except RedisError as error:
                attempts.failed(error)
            else:
                if task and task.cancelling() > cancellations:
                    # Python 3.11's wait_for, in which redis-py sends, swallows a cancellation now and then.
                    raise asyncio.CancelledError
                return reply

    @property
    def shown(self) -> str:
        """Where answers are published, for people."""
        return self._endpoints["results"].shown

    def answers_channel(self) -> redis.asyncio.client.PubSub:
        """A new pub/sub connection to where answers are published."""
        return self._servers["results"].pubsub()

    async def close(self) -> None:
        """Close all connections, whatever becomes of one of them; then raise the first failure."""
        outcomes = await asyncio.gather(*(server.aclose() for server in self._servers.values()), return_exceptions=True)
        for failure in filter(None, outcomes):
            raise failure


class Attempts:
    """One command's failures. It is tried once more on a fresh connection, since every operation may be repeated.

    A pooled connection may have been closed by the server meanwhile, and an event loop that was busy for a second
    takes a reply that lies there for one that never came.
    """

    def __init__(self, call: Call | Together, endpoint: Endpoint) -> None:
        self._call = call
        self._endpoint = endpoint
        self._may_try_again = True
        self._may_have_run = False

    def failed(self, error: RedisError) -> None:
        """Return when the command should be tried again; raise `BrokerUnavailable` otherwise."""
        if not isinstance(error, _REFUSALS) and "connecting" not in str(error).lower():
            self._may_have_run = True
        broken = isinstance(error, redis.ConnectionError | redis.TimeoutError) and not isinstance(error, _REFUSALS)
        if broken and self._may_try_again:
            self._may_try_again = False
            return
        doubt = self._call.if_unanswered if self._may_have_run else ""
        raise BrokerUnavailable(unavailable(error, self._endpoint) + doubt + self._call.if_failed) from error


def unavailable(error: Exception, endpoint: Endpoint) -> str:
    """The sentence for a failure of Redis: what, where, and what to do."""
    where = f"Redis at {endpoint.shown}"
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    match error:
        case NoPermissionError():
            return (
                f"{where} does not permit this user to do that ({reason}); use another role's user, or widen its rules."
            )
        case AuthenticationError() | AuthorizationError():
            return f"{where} refused the user name or password; correct them in {endpoint.variable}."
        case OutOfMemoryError():
            return f"{where} is out of memory and takes nothing new; wait until workers have caught up, or enlarge it."
        case BusyLoadingError():
            return f"{where} is still loading its data; try again in a moment."
        case ReadOnlyError():
            return f"{where} is a read-only replica; set {endpoint.variable} to the primary."
        case MovedError() | ClusterError():
            return f"{where} is a Redis Cluster, which Celery cannot use; set {endpoint.variable} to a single server."
        case redis.TimeoutError() | TimeoutError():
            return f"{where} did not answer in time; check that it runs and that {endpoint.variable} is right."
        case InvalidResponse():
            return f"{where} is something else than Redis ({reason}); correct {endpoint.variable}."
        case ResponseError():
            return f"{where} refused a command ({reason}); check that nothing else uses its keys."
        case _:
            return f"{where} cannot be reached ({reason}); start it, or correct {endpoint.variable}."


async def _asked(server: redis.asyncio.Redis, call: Call | Together) -> Any:
    if isinstance(call, Call):
        return await server.execute_command(*call.command)
    async with server.pipeline(transaction=True) as pipe:
        for command in call.commands:
            pipe.execute_command(*command)
        return _of_our_kind(await pipe.execute(raise_on_error=False))


def _of_our_kind(replies: list[Any]) -> list[Any]:
    """Several replies, None for a key of a wrong kind: it holds nothing of ours, and hides nothing of the others."""
    for reply in replies:
        if isinstance(reply, Exception) and not str(reply).startswith("WRONGTYPE"):
            raise reply
    return [None if isinstance(reply, Exception) else reply for reply in replies]


def _blocking(endpoint: Endpoint) -> redis.Redis:
    server = redis.Redis.from_url(endpoint.url, **_options(endpoint, redis.retry.Retry))
    _check_arguments(server.connection_pool, endpoint)
    return server


def _asynchronous(endpoint: Endpoint) -> redis.asyncio.Redis:
    server = redis.asyncio.Redis.from_url(endpoint.url, **_options(endpoint, redis.asyncio.retry.Retry))
    _check_arguments(server.connection_pool, endpoint)
    return server


def _options(endpoint: Endpoint, retry: Any) -> dict[str, Any]:
    return {
        **({} if endpoint.url.startswith("unix:") else {"socket_keepalive": True}),
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": READ_TIMEOUT_S,
        "client_name": "nameshot",
        "protocol": 2,
        # Nothing is retried below us: a subscription is renewed as a whole, a command by `Attempts`.
        "retry": retry(NoBackoff(), 0, supported_errors=()),
    }


def _check_arguments(pool: Any, endpoint: Endpoint) -> None:
    """A misspelt query argument shows only when a connection is made, as a TypeError: make one, unconnected."""
    try:
        pool.make_connection()
    except (TypeError, ValueError, RedisError) as error:
        reason = str(error).rpartition("__init__() ")[2].rstrip(".")
        raise SettingsError(f"{endpoint.variable} cannot be used: {reason}.") from None
