"""Which servers will do: one Redis of 6.2 or later, or a Valkey, that is no Cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from redis.exceptions import AskError, ClusterCrossSlotError, ClusterError, NoPermissionError, ResponseError

from producer.broker.urls import Endpoint

#: What every role of ours may ask; the answer tells version and mode of Redis, Valkey and what imitates them.
ASK: Final = ("INFO", "server")
#: The first with BLMOVE, by which an idle worker waits for a job.
OLDEST: Final = (6, 2)
#: What a server answers that is a part of a Redis Cluster; MovedError is an AskError.
OF_A_CLUSTER: Final = (AskError, ClusterError, ClusterCrossSlotError)
#: A trial of BLMOVE waits no longer; it is a blocking command.
_TRIAL_S: Final = 0.01
#: A subscription is confirmed, or refused, as fast as any command.
_HEARING_S: Final = 2.0


def what_is_wrong(info: Any, endpoint: Endpoint) -> str | None:
    """Why a server that answered `ASK` so will never do, as a sentence; None where nothing says so."""
    if not isinstance(info, Mapping):  # a proxy's idea of an answer
        return None
    if "cluster" in (info.get("redis_mode"), info.get("server_mode")):
        return is_a_cluster(endpoint)
    version = _version(info)
    if "valkey_version" in info or version is None or version >= OLDEST:
        return None
    return (
        f"Redis at {endpoint.shown} is version {info['redis_version']}, and workers need 6.2 or later, or Valkey; "
        f"upgrade it, or set {endpoint.variable} to another."
    )


def unfit(server: Any, endpoint: Endpoint) -> str | None:
    """Ask a server through a client of redis-py; a sentence as `what_is_wrong` has them.

    One that does not answer raises redis-py's error; one that keeps to itself what it is may do.
    """
    try:
        return what_is_wrong(server.execute_command(*ASK), endpoint)
    except OF_A_CLUSTER:
        return is_a_cluster(endpoint)
    except ResponseError as error:
        return refused_database(str(error), endpoint)


def cannot_wait(server: Any, name: str, endpoint: Endpoint, *, as_a_worker: bool = True) -> str | None:
    """Why a worker could not wait for jobs there: the command is unknown or not permitted. None where it can.

    Args:
        server: a client of redis-py.
        name: a list that the worker's role may move messages of; one that holds some is turned by one.
        endpoint: where the server is.
        as_a_worker: the client's user is a worker's, and needs the permission.
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
                f"Redis at {endpoint.shown} does not permit this user the list {name}: its rules are for another "
                "prefix; make them anew with `nameshot acl`, or correct NAMESHOT_QUEUE_PREFIX."
            )
        return (
            f"Redis at {endpoint.shown} does not permit this user to run BLMOVE, by which a worker waits for jobs; "
            f"use the worker's user in {endpoint.variable}, or widen the rules of this one (`nameshot acl`)."
        )
    except ResponseError as error:
        if "unknown command" in str(error).lower() or "unsupported command" in str(error).lower():
            return (
                f"Redis at {endpoint.shown} has no BLMOVE, by which a worker waits for jobs; use Redis 6.2 or later, "
                "or Valkey, and no proxy that hides commands."
            )
        # Memory that is short, a key of another kind: the command is there.
    return None


def cannot_hear(server: Any, endpoint: Endpoint) -> str | None:
    """Why a worker could not hear Celery's remote control there: its role is of another database. None where it can."""
    channel = f"/{endpoint.arguments['db']}.celery.pidbox"
    with server.pubsub() as subscription:
        try:
            subscription.psubscribe(channel)
            subscription.get_message(timeout=_HEARING_S)
        except NoPermissionError:
            return (
                f"Redis at {endpoint.shown} does not permit this user the channel {channel}: its rules are for another "
                f"database; make them anew with `nameshot acl`, or correct {endpoint.variable}."
            )
    return None


def refused_database(reason: str, endpoint: Endpoint) -> str | None:
    """The sentence for an error about a database that is not there; None for other errors."""
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
    """The sentence for a server that is a part of a Redis Cluster."""
    return (
        f"Redis at {endpoint.shown} is a Redis Cluster, which Celery cannot use; "
        f"set {endpoint.variable} to a single server."
    )


def _version(info: Mapping[str, Any]) -> tuple[int, ...] | None:
    # redis-py reads a version with one point as a number.
    parts = str(info.get("redis_version", "")).split(".")
    numbers = [int(part) for part in parts[:2] if part.isascii() and part.isdigit()]
    return tuple(numbers) if len(numbers) == len(parts[:2]) else None
