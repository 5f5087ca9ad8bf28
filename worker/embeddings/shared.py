"""Image embeddings in a Redis, where workers of the same model find what another one made.

A cache and nothing more: while Redis is away, slow or full, or holds what nobody can read, images are embedded as if
there were none. Each model has a hash of its own, bounded in bytes: the least recently used goes first.
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
from worker.embeddings.of_images import Embedding

logger = logging.getLogger(__name__)

#: What a server takes for one entry beside its value: a hash's field and a sorted set's member, 32 bytes each, and
#: what leads to them. Measured with Valkey 9: 185 to 206; other servers and versions may take a little more.
ENTRY_BYTES: Final = 256
#: A model that no worker asks for any more is forgotten.
LIFE_S: Final = 7 * 86_400
#: Longer than any server takes that is worth asking: an image of a small model is embedded meanwhile.
TIMEOUT_S: Final = 0.25
#: A server that failed is left alone for so long, so that it delays few images.
PAUSE_S: Final = 10.0
#: How far from 1 the length of a vector may be that was one when float16 wrote it.
LENGTH_TOLERANCE: Final = 0.01
#: Width, height, the format's number, and the rows of a family with several vectors an image (0: it has one).
_HEAD: Final = struct.Struct("<IIBB")
# KEYS: the hash of values, the sorted set of when each was used. ARGV: the field, and the keys' life from now on.
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
# ARGV: further the value, and how many there may be.
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
    """Thread-safe; connects when it is first asked, and never raises.

    Args:
        server: where.
        key: the first part of its two keys' names; workers whose embeddings may be mixed have the same.
        max_bytes: of the server's memory, for both keys together.

    Attributes:
        hits: embeddings found.
        misses: those that were not there, or could not be read.
        failures: times that the server did not answer.
    """

    def __init__(self, server: Endpoint, key: str, *, max_bytes: int) -> None:
        self._server = server
        self._keys = (key, f"{key}:used")
        self.max_bytes = max_bytes
        client = connect(
            server,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            # Once more at once: a pooled connection may have been closed by the server meanwhile.
            retry=Retry(NoBackoff(), 1),
        )
        self._recall = client.register_script(_RECALL)
        self._remember = client.register_script(_REMEMBER)
        self._lock = threading.Lock()
        self._shape: tuple[int, ...] | None = None
        self._left_alone_until_s = 0.0
        self.hits = self.misses = self.failures = 0

    def recall(self, sha256: str) -> Embedding | None:
        """The embedding of the file with this digest, while it is kept and Redis answers."""
        value = self._call(self._recall, [bytes.fromhex(sha256), LIFE_S])
        found = None if value is None else _read(value)
        if found is not None and self._shape not in (None, found.vector.shape):
            found = None
        with self._lock:
            self.hits += found is not None
            self.misses += found is None
        return found

    def remember(self, sha256: str, embedding: Embedding) -> None:
        """Keep one for others; what was kept for this digest goes."""
        self._shape = embedding.vector.shape
        value = _written(embedding)
        most = self.max_bytes // (len(value) + ENTRY_BYTES)
        self._call(self._remember, [bytes.fromhex(sha256), LIFE_S, value, most])

    def _call(self, script: Any, arguments: Sequence[object]) -> Any:
        if time.monotonic() < self._left_alone_until_s:
            return None
        try:
            return script(keys=self._keys, args=arguments)
        except redis.RedisError as error:
            self._failed(error)
            return None

    def _failed(self, error: redis.RedisError) -> None:
        with self._lock:
            self.failures += 1
            if time.monotonic() < self._left_alone_until_s:
                return  # another thread has said so
            self._left_alone_until_s = time.monotonic() + PAUSE_S
        logger.warning(
            "the shared embeddings at %s fail (%s): going on without, trying again in %g s",
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
    """What `_written` wrote; None for anything else."""
    try:
        width, height, format_number, rows = _HEAD.unpack_from(value)
        numbers = np.frombuffer(value, "<f4", offset=_HEAD.size)
        vector = (numbers.reshape(rows, -1) if rows else numbers).astype(np.float32)  # a copy: the value can go
        vector.setflags(write=False)
        # Not-a-number is near nothing.
        is_unit = bool(np.all(np.abs(np.linalg.norm(vector, axis=-1) - 1) < LENGTH_TOLERANCE))
        return Embedding(vector, width, height, FORMATS[format_number]) if is_unit and width and height else None
    except (struct.error, ValueError, IndexError):
        return None
