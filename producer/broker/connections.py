"""Redis connections with short timeouts that report every failure in one sentence.

`BlockingLink` and `AsyncLink` run operations (see `producer.operations.exchanges`). Importing this module loads
redis-py, so a client imports it only when the client is created.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, TypeVar

import redis
import redis.asyncio
from redis import exceptions
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from producer.broker.dialling import connect, connect_async
from producer.broker.failures import may_pass, needs_probe, unavailable
from producer.broker.servers import QUERY, what_is_wrong
from producer.broker.urls import Endpoint
from producer.errors import BrokerUnavailable
from producer.operations.exchanges import Call, Operation, Server, Together

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: A client must report a dead broker within 3 s. These timeouts leave time for two attempts: one on a pooled connection
#: that turns out to be broken or silent, and one on a new connection.
CONNECT_TIMEOUT_S: Final = 1.0
READ_TIMEOUT_S: Final = 1.1
#: The maximum number of connections of one `AsyncLink`. Thousands of tasks may call at once, but Redis runs only one
#: command at a time.
MAX_ASYNC_CONNECTIONS: Final = 32

#: A server replies with one of these errors instead of running the command.
_REFUSALS: Final = (
    ResponseError,
    exceptions.AuthenticationError,
    exceptions.AuthorizationError,
    exceptions.BusyLoadingError,
    exceptions.InvalidResponse,
)


class BlockingLink:
    """Runs operations in the calling thread; any number of threads may share it."""

    def __init__(self, broker: Endpoint, results: Endpoint) -> None:
        self._endpoints = {"broker": broker, "results": results}
        self._servers = {
            name: connect(endpoint, **_options(endpoint, redis.retry.Retry))
            for name, endpoint in self._endpoints.items()
        }
        self._checked: set[Server] = set()

    def run(self, operation: Operation[T]) -> T:
        """Run an operation and return its result; raises `BrokerUnavailable`, and the errors of the operation."""
        try:
            call = next(operation)
            while True:
                try:
                    reply = self._execute(call)
                except BrokerUnavailable as error:
                    call = operation.throw(error)
                else:
                    call = operation.send(reply)
        except StopIteration as finished:
            result: T = finished.value
            return result

    def _execute(self, call: Call | Together) -> Any:
        attempts = Attempts(call, self._endpoints[call.server])
        while True:
            try:
                if call.server not in self._checked:
                    self._check(attempts, call.server)
                return _send(self._servers[call.server], call)
            except RedisError as error:
                if call.may_fail:
                    return None
                attempts.failed(error)

    def _check(self, attempts: Attempts, name: Server) -> None:
        """Check that a server is suitable, once, before its first command."""
        attempts.is_sent = False
        try:
            attempts.check(self._servers[name].execute_command(*QUERY))
        except ResponseError as error:
            logger.debug("%s refuses INFO: %s", attempts.endpoint.shown, error)
        attempts.is_sent = True
        self._checked.add(name)

    def close(self) -> None:
        """Close all connections."""
        for server in self._servers.values():
            server.close()


class AsyncLink:
    """Runs operations in one event loop; any number of its tasks may share it."""

    def __init__(self, broker: Endpoint, results: Endpoint) -> None:
        self._endpoints = {"broker": broker, "results": results}
        self._servers = {
            name: connect_async(endpoint, **_options(endpoint, redis.asyncio.retry.Retry))
            for name, endpoint in self._endpoints.items()
        }
        self._checked: set[Server] = set()
        self._free_connections = asyncio.Semaphore(MAX_ASYNC_CONNECTIONS)

    async def run(self, operation: Operation[T]) -> T:
        """Run an operation and return its result; raises `BrokerUnavailable`, and the errors of the operation."""
        try:
            call = next(operation)
            while True:
                try:
                    reply = await self._execute(call)
                except BrokerUnavailable as error:
                    call = operation.throw(error)
                else:
                    call = operation.send(reply)
        except StopIteration as finished:
            result: T = finished.value
            return result

    async def _execute(self, call: Call | Together) -> Any:
        attempts = Attempts(call, self._endpoints[call.server])
        task = asyncio.current_task()
        cancellations = task.cancelling() if task else 0
        while True:
            try:
                async with self._free_connections:
                    if call.server not in self._checked:
                        await self._check(attempts, call.server)
                    reply = await _send_async(self._servers[call.server], call)
            except RedisError as error:
                if call.may_fail:
                    return None
                if needs_probe(error, attempts.endpoint):  # the probe would block the event loop
                    await asyncio.to_thread(attempts.failed, error)
                else:
                    attempts.failed(error)
            else:
                if task and task.cancelling() > cancellations:
                    # redis-py sends within wait_for, which on Python 3.11 occasionally swallows a cancellation.
                    raise asyncio.CancelledError
                return reply

    async def _check(self, attempts: Attempts, name: Server) -> None:
        """Check a server as `BlockingLink` does."""
        attempts.is_sent = False
        try:
            attempts.check(await self._servers[name].execute_command(*QUERY))
        except ResponseError as error:
            logger.debug("%s refuses INFO: %s", attempts.endpoint.shown, error)
        attempts.is_sent = True
        self._checked.add(name)

    @property
    def shown(self) -> str:
        """The result backend's address without password, for messages."""
        return self._endpoints["results"].shown

    def answers_channel(self) -> redis.asyncio.client.PubSub:
        """Return a new pub/sub connection to the result backend, which publishes the answers."""
        return self._servers["results"].pubsub()

    async def close(self) -> None:
        """Close all connections even if one fails to close; then raise the first failure."""
        outcomes = await asyncio.gather(*(server.aclose() for server in self._servers.values()), return_exceptions=True)
        for failure in filter(None, outcomes):
            raise failure


class Attempts:
    """Decides after each failure of a command whether to retry it; a command is retried once, on a new connection.

    The server may have closed the pooled connection, or a busy event loop may have missed a reply that arrived in
    time. A retry is safe, because every operation is repeatable.
    """

    def __init__(self, call: Call | Together, endpoint: Endpoint) -> None:
        self._call = call
        self.endpoint = endpoint
        self._may_try_again = True
        #: Whether the command itself was sent; false during the check before the first command.
        self.is_sent = True
        self._may_have_run = False

    def failed(self, error: RedisError) -> None:
        """Return if the command should be retried; raise `BrokerUnavailable` otherwise."""
        if self.is_sent and not isinstance(error, _REFUSALS) and "connecting" not in str(error).lower():
            self._may_have_run = True
        broken = isinstance(error, redis.ConnectionError | redis.TimeoutError) and not isinstance(error, _REFUSALS)
        if broken and self._may_try_again:
            self._may_try_again = False
            return
        doubt = self._call.if_unanswered if self._may_have_run else ""
        sentence = unavailable(error, self.endpoint) + doubt + self._call.if_failed
        raise BrokerUnavailable(sentence, may_pass=may_pass(error), may_have_run=self._may_have_run) from error

    def check(self, info: Any) -> None:
        """Raise `BrokerUnavailable` if the reply to `QUERY` shows that the server is unsuitable."""
        if sentence := what_is_wrong(info, self.endpoint):
            raise BrokerUnavailable(sentence + self._call.if_failed)


def _options(endpoint: Endpoint, retry: Any) -> dict[str, Any]:
    ours = {
        "socket_keepalive": True,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": READ_TIMEOUT_S,
        "client_name": "nameshot",
        # redis-py must not retry: the listener renews all its subscriptions, and `Attempts` retries a command.
        "retry": retry(NoBackoff(), 0, supported_errors=()),
    }
    return {name: value for name, value in ours.items() if name not in endpoint.arguments}


def _send(server: redis.Redis, call: Call | Together) -> Any:
    if isinstance(call, Call):
        if call.command[0] != "EVAL":
            return server.execute_command(*call.command)
        script, count, *rest = call.command[1:]
        return server.eval(str(script), int(count), *rest)
    with server.pipeline(transaction=True) as pipe:
        for command in call.commands:
            pipe.execute_command(*command)
        return _without_wrong_types(pipe.execute(raise_on_error=False))


async def _send_async(server: redis.asyncio.Redis, call: Call | Together) -> Any:
    if isinstance(call, Call):
        if call.command[0] != "EVAL":
            return await server.execute_command(*call.command)
        script, count, *rest = call.command[1:]
        return await server.eval(str(script), int(count), *rest)
    async with server.pipeline(transaction=True) as pipe:
        for command in call.commands:
            pipe.execute_command(*command)
        return _without_wrong_types(await pipe.execute(raise_on_error=False))


def _without_wrong_types(replies: list[Any]) -> list[Any]:
    """Return the replies; raise an error among them, except WRONGTYPE.

    A key of a wrong type holds no data of this project, so the reply for such a key becomes None.
    """
    for reply in replies:
        if isinstance(reply, Exception) and not str(reply).startswith("WRONGTYPE"):
            raise reply
    return [None if isinstance(reply, Exception) else reply for reply in replies]
