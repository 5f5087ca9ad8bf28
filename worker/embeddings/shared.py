"""A cache of image embeddings in Redis, shared by the workers of a model.

While Redis is unreachable, slow or full, or holds malformed values, workers embed images as without the cache. Each
model has a hash of its own, bounded in bytes; the least recently used embeddings are evicted first.
"""

from __future__ import annotations

import logging
import struct
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from producer.broker.dialling import connect
from producer.broker.urls import Endpoint
from worker.decoding.images import FORMATS
from worker.embeddings.image_cache import Embedding

logger = logging.getLogger(__name__)

#: The memory that Redis needs for an entry besides its value: a hash's field and a sorted set's member of 32 bytes
#: each, and pointers to them. Valkey 9 uses 185 to 206 bytes; other servers and versions may use a little more.
ENTRY_BYTES: Final = 256
#: A model's embeddings expire when no worker has used any of them for a week.
TTL_S: Final = 7 * 86_400
#: A small model embeds an image in this time, so a longer wait for Redis would not pay.
TIMEOUT_S: Final = 0.25
#: After a failure the worker does not use the cache for this long, so that few images are delayed.
PAUSE_S: Final = 10.0
#: The norm of a stored unit vector may differ from 1 by this much, which allows for rounding to float16.
LENGTH_TOLERANCE: Final = 0.01
#: A value's header: width, height, the format's index in `FORMATS`, and q for a vector of shape (q, d), 0 for (d,).
_HEAD: Final = struct.Struct("<IIBB")
# KEYS: the hash of values, the sorted set of times of last use. ARGV: the field, and the keys' time to live in seconds.
_USED: Final = """
local time = redis.call('TIME')
redis.call('ZADD', KEYS[2], time[1] + time[2] / 1000000, ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[2])
"""
_RECALL: Final = f"""
local value = redis.call('HGET', KEYS[1], ARGV[1])
if value then
{_USED}
end
return value
"""
# ARGV also holds the value, and the largest number of entries.
_REMEMBER: Final = f"""
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
{_USED}
local over = redis.call('HLEN', KEYS[1]) - ARGV[4]
if over > 0 then
    for _, field in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '+inf', 'LIMIT', 0, math.min(over, 1000))) do
        redis.call('HDEL', KEYS[1], field)
        redis.call('ZREM', KEYS[2], field)
    end
end
"""


class SharedEmbeddings:
    """The shared cache. Thread-safe; it connects on first use and never raises.

    Args:
        server: the Redis server.
        key: the hash's key, with which the sorted set's key begins; workers whose embeddings are interchangeable use
            the same key.
        max_bytes: the bound on the server's memory for both keys together.

    Attributes:
        hits: the number of embeddings found.
        misses: the number of embeddings that were absent or malformed, or that Redis did not return because it failed.
        failures: the number of calls to Redis that failed.
    """

    def __init__(self, server: Endpoint, key: str, *, max_bytes: int) -> None:
        self._server = server
        self._keys = (key, f"{key}:used")
        self.max_bytes = max_bytes
        client = connect(
            server,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            # One immediate retry suffices for a connection that the server closed while it was idle.
            retry=Retry(NoBackoff(), 1),
        )
        self._recall = client.register_script(_RECALL)
        self._remember = client.register_script(_REMEMBER)
        self._lock = threading.Lock()
        self._shape: tuple[int, ...] | None = None
        self._paused_until_s = 0.0
        self.hits = self.misses = self.failures = 0

    def recall(self, sha256: str) -> Embedding | None:
        """Return the cached embedding of the file with this digest; None if it is absent or unusable or Redis fails."""
        value = self._call(self._recall, [bytes.fromhex(sha256), TTL_S])
        found = None if value is None else _read(value)
        if found is not None and self._shape not in (None, found.vector.shape):
            found = None
        with self._lock:
            self.hits += found is not None
            self.misses += found is None
        return found

    def remember(self, sha256: str, embedding: Embedding) -> None:
        """Store the embedding of the file with this digest."""
        self._shape = embedding.vector.shape
        value = _written(embedding)
        most = self.max_bytes // (len(value) + ENTRY_BYTES)
        self._call(self._remember, [bytes.fromhex(sha256), TTL_S, value, most])

    def _call(self, script: Any, arguments: Sequence[object]) -> Any:
        if time.monotonic() < self._paused_until_s:
            return None
        try:
            return script(keys=self._keys, args=arguments)
        except redis.RedisError as error:
            self._failed(error)
            return None

    def _failed(self, error: redis.RedisError) -> None:
        with self._lock:
            self.failures += 1
            if time.monotonic() < self._paused_until_s:
                return  # another thread has logged a failure
            self._paused_until_s = time.monotonic() + PAUSE_S
        logger.warning(
            "the shared cache of embeddings at %s fails (%s): continuing without it, retrying in %g s",
            self._server.shown,
            type(error).__name__,
            PAUSE_S,
        )


def _written(embedding: Embedding) -> bytes:
    vector = embedding.vector
    rows = vector.shape[0] if vector.ndim == 2 else 0
    head = _HEAD.pack(embedding.width, embedding.height, FORMATS.index(embedding.format), rows)
    return head + vector.astype("<f4", copy=False).tobytes()


def _read(value: bytes) -> Embedding | None:
    """Parse a value that `_written` returned; return None for any other value."""
    try:
        width, height, format_number, rows = _HEAD.unpack_from(value)
        numbers = np.frombuffer(value, "<f4", offset=_HEAD.size)
        # The numbers are copied, so that the value can be freed.
        vector = (numbers.reshape(rows, -1) if rows else numbers).astype(np.float32)
        vector.setflags(write=False)
        # A NaN fails this comparison too.
        is_unit = bool(np.all(np.abs(np.linalg.norm(vector, axis=-1) - 1) < LENGTH_TOLERANCE))
        return Embedding(vector, width, height, FORMATS[format_number]) if is_unit and width and height else None
    except (struct.error, TypeError, ValueError, IndexError):
        return None
