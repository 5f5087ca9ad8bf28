"""Which servers will do: one Redis of 6.2 or later, or a Valkey, that is no Cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from producer.redis_urls import Endpoint

#: What every role of ours may ask; the answer tells version and mode of Redis, Valkey and what imitates them.
ASK: Final = ("INFO", "server")
#: The first with BLMOVE, by which an idle worker waits for a job.
OLDEST: Final = (6, 2)


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
