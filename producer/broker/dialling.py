"""Connections of redis-py to an `Endpoint`, made one way by everything that talks to Redis here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import redis
import redis.asyncio
from redis.exceptions import RedisError

from producer.broker.urls import Endpoint, Medium
from producer.errors import SettingsError

CLASSES: Final[Mapping[Medium, Any]] = {
    "tcp": redis.Connection,
    "tls": redis.SSLConnection,
    "unix": redis.UnixDomainSocketConnection,
}
_ASYNC_CLASSES: Final[Mapping[Medium, Any]] = {
    "tcp": redis.asyncio.Connection,
    "tls": redis.asyncio.SSLConnection,
    "unix": redis.asyncio.UnixDomainSocketConnection,
}


def connect(endpoint: Endpoint, **options: Any) -> redis.Redis:
    """A client with connections of its own, which it makes when it is used.

    Args:
        endpoint: where.
        options: redis-py's, which win over those of the URL.

    Raises:
        SettingsError: the installed redis-py does not know an argument of the URL.
    """
    pool = redis.ConnectionPool(connection_class=CLASSES[endpoint.medium], **connection_arguments(endpoint, options))
    _check(pool, endpoint)
    return redis.Redis.from_pool(pool)


def connect_async(endpoint: Endpoint, **options: Any) -> redis.asyncio.Redis:
    """The same for asyncio."""
    pool = redis.asyncio.ConnectionPool(
        connection_class=_ASYNC_CLASSES[endpoint.medium], **connection_arguments(endpoint, options)
    )
    _check(pool, endpoint)
    return redis.asyncio.Redis.from_pool(pool)


def connection_arguments(endpoint: Endpoint, options: Mapping[str, Any]) -> dict[str, Any]:
    """For a connection of the endpoint's medium: the URL's arguments, and options that win over all but its name."""
    left_out = {"client_name"} & endpoint.arguments.keys()
    if endpoint.medium == "unix":
        left_out |= {"socket_keepalive", "socket_keepalive_options"}
    return {**endpoint.arguments, **{name: value for name, value in options.items() if name not in left_out}}


def _check(pool: Any, endpoint: Endpoint) -> None:
    """What a version of redis-py does not know shows only when a connection is made: make one, unconnected."""
    try:
        pool.make_connection()
    except (TypeError, ValueError, RedisError) as error:
        reason = str(error).rpartition("__init__() ")[2].rstrip(".")
        raise SettingsError(
            f"{endpoint.variable} cannot be used with redis-py {redis.__version__}: {reason}."
        ) from None
