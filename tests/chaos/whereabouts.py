"""Finds where in Redis the messages of lost jobs are, which is the first question about a lost job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

import redis

NOWHERE = "nowhere"


def whereabouts(broker: redis.Redis, lost: Collection[str]) -> Counter[str]:
    """Count lost jobs by the Redis key that still holds their message; `NOWHERE` counts those without a message.

    Lists, hashes, sorted sets, sets and streams of any name in the broker's database count. Strings do not, because a
    job's claim is no message.
    """
    missing = {f'"{job_id}"'.encode(): job_id for job_id in lost}
    places: dict[str, set[str]] = {job_id: set() for job_id in lost}
    if lost:
        for key in sorted(broker.scan_iter(count=1000)):
            contents = b"\n".join(_contents(broker, key))
            for quoted, job_id in missing.items():
                # The values of a hash may be JSON inside JSON, in which quotes are escaped.
                if quoted in contents or quoted.replace(b'"', b'\\"') in contents:
                    places[job_id].add(key.decode(errors="replace"))
    return Counter(" and ".join(sorted(found)) or NOWHERE for found in places.values())


def _contents(broker: redis.Redis, key: bytes) -> Iterator[bytes]:
    commands: dict[bytes, tuple[Any, ...]] = {
        b"list": ("LRANGE", key, 0, -1),
        b"hash": ("HVALS", key),
        b"set": ("SMEMBERS", key),
        b"zset": ("ZRANGE", key, 0, -1),
        b"stream": ("XRANGE", key, "-", "+"),
    }
    kind: bytes = broker.type(key)  # type: ignore[assignment]
    if kind in commands:
        yield from _flat(broker.execute_command(*commands[kind]))


def _flat(reply: Any) -> Iterator[bytes]:
    if isinstance(reply, bytes):
        yield reply
    elif isinstance(reply, dict):
        yield from _flat([*reply.keys(), *reply.values()])
    elif isinstance(reply, list | tuple | set):
        for part in reply:
            yield from _flat(part)
