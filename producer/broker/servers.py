"""Check that a server is suitable: a single Redis 6.2 or later, or a single Valkey, not a Cluster."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from redis.exceptions import AskError, ClusterCrossSlotError, ClusterError, NoPermissionError, ResponseError

from producer.broker.urls import Endpoint

#: Every role may send this command; the reply holds the version and the mode of Redis, Valkey and compatible servers.
QUERY: Final = ("INFO", "server")
#: The first version with BLMOVE, with which an idle worker waits for a job.
OLDEST: Final = (6, 2)
#: The errors that a node of a Redis Cluster returns; MovedError is an AskError.
OF_A_CLUSTER: Final = (AskError, ClusterError, ClusterCrossSlotError)
#: BLMOVE blocks while the list is empty, so the trial needs a timeout.
_TRIAL_S: Final = 0.01
#: A smaller difference may only be the time that the reply took; synchronised clocks differ by milliseconds.
CLOCK_TOLERANCE_S: Final = 5.0
#: Redis confirms or refuses a subscription as fast as it replies to any command.
_CONFIRMATION_TIMEOUT_S: Final = 2.0


def what_is_wrong(info: Any, endpoint: Endpoint) -> str | None:
    """Return why a server with this reply to `QUERY` is unsuitable, as a sentence; None if the reply shows no fault."""
    if not isinstance(info, Mapping):  # some proxies reply in another form
        return None
    if "cluster" in (info.get("redis_mode"), info.get("server_mode")):
        return is_a_cluster(endpoint)
    version = _version(info)
    if "valkey_version" in info or version is None or version >= OLDEST:
        return None
    return (
        f"Redis at {endpoint.shown} is version {info['redis_version']}; workers need Redis 6.2 or later, or Valkey: "
        f"upgrade it, or set {endpoint.variable} to another server."
    )


def unsuitable(server: Any, endpoint: Endpoint) -> str | None:
    """Query a server through a redis-py client; return why it is unsuitable, as `what_is_wrong` does.

    Raises redis-py's error if the server does not reply. A server that hides its version counts as suitable.
    """
    try:
        info = server.execute_command(*QUERY)
    except OF_A_CLUSTER:
        return is_a_cluster(endpoint)
    except ResponseError as error:
        return refused_database(str(error), endpoint)
    return what_is_wrong(info, endpoint)


def cannot_wait(server: Any, name: str, endpoint: Endpoint, *, as_a_worker: bool = True) -> str | None:
    """Return why a worker could not wait for jobs on this server, or None if it could.

    The server may not know BLMOVE or not permit it.

    Args:
        server: a client of redis-py.
        name: a list whose messages the worker's role may move; the trial moves its last message to the front.
        endpoint: the address of the server.
        as_a_worker: whether the client's user has the worker's role, and therefore needs the permission.
    """
    try:
        server.execute_command("BLMOVE", name, name, "RIGHT", "LEFT", _TRIAL_S)
    except OF_A_CLUSTER:
        return is_a_cluster(endpoint)
    except NoPermissionError as error:
        if not as_a_worker:
            return None
        if "key" in str(error):
            return (
                f"Redis at {endpoint.shown} does not permit this user to use the list {name}: the user's rules are for "
                "another prefix; create new rules with `nameshot acl`, or correct NAMESHOT_QUEUE_PREFIX."
            )
        return (
            f"Redis at {endpoint.shown} does not permit this user to run BLMOVE, with which a worker waits for jobs; "
            f"use the worker's user in {endpoint.variable}, or extend this user's rules (`nameshot acl`)."
        )
    except ResponseError as error:
        if "unknown command" in str(error).lower() or "unsupported command" in str(error).lower():
            return (
                f"Redis at {endpoint.shown} has no BLMOVE, with which a worker waits for jobs; use Redis 6.2 or later, "
                "or Valkey, without a proxy that blocks commands."
            )
        # Any other error, such as OOM or WRONGTYPE, shows that the command exists.
    return None


def cannot_subscribe(server: Any, endpoint: Endpoint) -> str | None:
    """Return why a worker could not receive Celery's remote control, or None if it could.

    The rules of the worker's user may be for another database.
    """
    channel = f"/{endpoint.arguments['db']}.celery.pidbox"
    with server.pubsub() as subscription:
        try:
            subscription.psubscribe(channel)
            subscription.get_message(timeout=_CONFIRMATION_TIMEOUT_S)
        except NoPermissionError:
            return (
                f"Redis at {endpoint.shown} does not permit this user to use the channel {channel}: the user's rules "
                f"are for another database; create new rules with `nameshot acl`, or correct {endpoint.variable}."
            )
    return None


def clock_fault(info: Any, endpoint: Endpoint) -> str | None:
    """Return, as a sentence, how far this machine's clock is from the server's; None if the difference is small.

    For nameshot's clients and workers the server's clock decides, but a plain Celery client computes ``expires`` and
    ``eta`` by its machine's clock.

    Args:
        info: the server's reply to `QUERY`, just received.
        endpoint: the address of the server.
    """
    if not isinstance(info, Mapping) or not isinstance(told_us := info.get("server_time_usec"), int):
        return None
    ahead_s = time.time() - told_us / 1e6
    if abs(ahead_s) < CLOCK_TOLERANCE_S:
        return None
    which = "ahead of" if ahead_s > 0 else "behind"
    return (
        f"this machine's clock is {abs(ahead_s):,.0f} s {which} that of Redis at {endpoint.shown}; a plain Celery "
        "client here would send a wrong expires or eta: synchronise the clocks (NTP)."
    )


def refused_database(reason: str, endpoint: Endpoint) -> str | None:
    """Return the sentence for an error about a database that does not exist; None for other errors."""
    lower = reason.lower()
    if "not allowed in cluster mode" in lower or "cluster support" in lower:
        return is_a_cluster(endpoint)
    if "db index is out of range" in lower:
        return (
            f"Redis at {endpoint.shown} has no database {endpoint.arguments['db']} (a Redis Cluster, which Celery "
            f"cannot use, has only database 0); correct {endpoint.variable}."
        )
    return None


def is_a_cluster(endpoint: Endpoint) -> str:
    """Return the sentence for a server that is part of a Redis Cluster."""
    return (
        f"Redis at {endpoint.shown} is a Redis Cluster, which Celery cannot use; "
        f"set {endpoint.variable} to a single server."
    )


def _version(info: Mapping[str, Any]) -> tuple[int, ...] | None:
    # redis-py parses a version with one dot, such as 7.2, as a number.
    parts = str(info.get("redis_version", "")).split(".")
    numbers = [int(part) for part in parts[:2] if part.isascii() and part.isdigit()]
    return tuple(numbers) if len(numbers) == len(parts[:2]) else None
