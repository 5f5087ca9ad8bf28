"""Redis connections with short timeouts that report every failure in one sentence.

`BlockingLink` and `AsyncLink` drive the operations of `producer.operations.exchanges`. Importing this module loads
redis-py, so clients import it when they are made.
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
from producer.broker.failures import may_pass, unavailable, wants_a_look
from producer.broker.servers import ASK, what_is_wrong
from producer.broker.urls import Endpoint
from producer.errors import BrokerUnavailable
from producer.operations.exchanges import Call, Operation, Server, Together

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: Two tries, one on a pooled connection that proves broken or silent and one on a new one, take less than the 3 s
#: within which a client must report a dead broker.
CONNECT_TIMEOUT_S: Final = 1.0
READ_TIMEOUT_S: Final = 1.1
#: Bounds the connections of one `AsyncLink`: thousands of tasks may call at once, but Redis runs one command at a time.
MAX_ASYNC_CONNECTIONS: Final = 32

#: With these errors the server has understood the command and done nothing.
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
        self._met: set[Server] = set()

    def run(self, operation: Operation[T]) -> T:
        """The operation's result; raises `BrokerUnavailable`, and what the operation raises."""
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
                if call.server not in self._met:
                    self._meet(attempts, call.server)
                return _ask(self._servers[call.server], call)
            except RedisError as error:
                if call.may_fail:
                    return None
                attempts.failed(error)

    def _meet(self, attempts: Attempts, name: Server) -> None:
        """Check once per server, before the first command, that it is suitable."""
        attempts.is_sent = False
        try:
            attempts.judge(self._servers[name].execute_command(*ASK))
        except ResponseError as error:
            logger.debug("%s refuses INFO: %s", attempts.endpoint.shown, error)
        attempts.is_sent = True
        self._met.add(name)

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
        self._met: set[Server] = set()
        self._turn = asyncio.Semaphore(MAX_ASYNC_CONNECTIONS)

    async def run(self, operation: Operation[T]) -> T:
        """The operation's result; raises `BrokerUnavailable`, and what the operation raises."""
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
                async with self._turn:
                    if call.server not in self._met:
                        await self._meet(attempts, call.server)
                    reply = await _ask_async(self._servers[call.server], call)
            except RedisError as error:
                if call.may_fail:
                    return None
                if wants_a_look(error, attempts.endpoint):  # connects to the port, so not in the event loop
                    await asyncio.to_thread(attempts.failed, error)
                else:
                    attempts.failed(error)
            else:
                if task and task.cancelling() > cancellations:
                    # redis-py sends within wait_for, which on Python 3.11 occasionally swallows a cancellation.
                    raise asyncio.CancelledError
                return reply

    async def _meet(self, attempts: Attempts, name: Server) -> None:
        """Check the server as `BlockingLink` does."""
        attempts.is_sent = False
        try:
            attempts.judge(await self._servers[name].execute_command(*ASK))
        except ResponseError as error:
            logger.debug("%s refuses INFO: %s", attempts.endpoint.shown, error)
        attempts.is_sent = True
        self._met.add(name)

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
    """Handle one command's failures: retry it once on a new connection, since every operation is repeatable.

    The server may have closed a pooled connection in the meantime, and an event loop that was busy for a second
    times out although the reply has arrived.
    """

    def __init__(self, call: Call | Together, endpoint: Endpoint) -> None:
        self._call = call
        self.endpoint = endpoint
        self._may_try_again = True
        #: False while `ASK` runs, before the command.
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
        raise BrokerUnavailable(sentence, may_pass=may_pass(error)) from error

    def judge(self, info: Any) -> None:
        """Raise `BrokerUnavailable` if the reply to `ASK` shows that the server is unsuitable."""
        if sentence := what_is_wrong(info, self.endpoint):
            raise BrokerUnavailable(sentence + self._call.if_failed)


def _options(endpoint: Endpoint, retry: Any) -> dict[str, Any]:
    ours = {
        "socket_keepalive": True,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": READ_TIMEOUT_S,
        "client_name": "nameshot",
        "protocol": 2,
        # redis-py retries nothing: the listener renews a subscription as a whole, `Attempts` retries a command.
        "retry": retry(NoBackoff(), 0, supported_errors=()),
    }
    return {name: value for name, value in ours.items() if name not in endpoint.arguments}


def _ask(server: redis.Redis, call: Call | Together) -> Any:
    if isinstance(call, Call):
        return server.execute_command(*call.command)
    with server.pipeline(transaction=True) as pipe:
        for command in call.commands:
            pipe.execute_command(*command)
        return _of_our_kind(pipe.execute(raise_on_error=False))


async def _ask_async(server: redis.asyncio.Redis, call: Call | Together) -> Any:
    if isinstance(call, Call):
        return await server.execute_command(*call.command)
    async with server.pipeline(transaction=True) as pipe:
        for command in call.commands:
            pipe.execute_command(*command)
        return _of_our_kind(await pipe.execute(raise_on_error=False))


def _of_our_kind(replies: list[Any]) -> list[Any]:
    """Return the replies, with None for a key of a wrong type: such a key holds nothing of ours. Raise other errors."""
    for reply in replies:
        if isinstance(reply, Exception) and not str(reply).startswith("WRONGTYPE"):
            raise reply
    return [None if isinstance(reply, Exception) else reply for reply in replies]
