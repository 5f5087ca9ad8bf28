"""Every command that reads or writes one key, for every key of a system and for values of every type."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import redis

from producer.contract.names import (
    QUEUES,
    alone_key,
    answer_key,
    claim_key,
    dead_letter_messages_key,
    dead_letters_key,
    forget_key,
    forgotten_key,
    in_flight_key,
    in_hand_key,
    lease_key,
    looker_key,
    mixed_key,
    open_key,
    place_key,
    postponed_key,
    queue_name,
    rate_key,
    record_key,
    rung_name,
    step_names,
    suspects_key,
    taken_name,
    upkeep_key,
    workers_key,
)

PREFIX: Final = "nameshot"
#: The name of a dead worker.
WORKER: Final = "linux-another-boot-1/17/n0123456789ab"
#: The text in every value; a role that can read it could read a message.
CANARY: Final = b"signed-url-of-a-stranger"

_QUEUES = [queue_name(PREFIX, queue) for queue in QUEUES]
#: The keys that hold messages, and so URLs.
MESSAGES: Final = (
    *_QUEUES,
    *(name for queue in _QUEUES for name in (rung_name(queue), step_names(queue)[0], step_names(queue)[-1])),
    in_flight_key(PREFIX, WORKER),
    postponed_key(PREFIX),
    dead_letter_messages_key(PREFIX),
)
#: Keys of another application in the same database.
FOREIGN: Final = ("celery", "_kombu.binding.celery", "_kombu.binding.default", "another-applications-key")
KEYS: Final = (
    *MESSAGES,
    *FOREIGN,
    *map(taken_name, _QUEUES),
    *(f"_kombu.binding.{queue}" for queue in _QUEUES),
    claim_key(PREFIX, "a-job"),
    place_key(PREFIX, "a-job"),
    answer_key("a-job"),
    forgotten_key("a-job"),
    forget_key(PREFIX),
    in_hand_key(PREFIX),
    mixed_key(PREFIX),
    workers_key(PREFIX),
    lease_key(PREFIX, WORKER),
    alone_key(PREFIX, WORKER),
    suspects_key(PREFIX),
    looker_key(PREFIX),
    upkeep_key(PREFIX),
    dead_letters_key(PREFIX),
    record_key(PREFIX, "a-job"),
    open_key(PREFIX, "a-key"),
    rate_key(PREFIX, "a-key"),
)

#: Functions that store a value of each type under a key.
TYPES: Final[dict[str, Callable[[redis.Redis, str], object]]] = {
    "none": lambda _broker, _key: None,
    "string": lambda broker, key: broker.set(key, CANARY),
    "list": lambda broker, key: broker.rpush(key, CANARY),
    "set": lambda broker, key: broker.sadd(key, CANARY),
    "hash": lambda broker, key: broker.hset(key, CANARY, CANARY),
    "zset": lambda broker, key: broker.zadd(key, {CANARY: 1}),
    "stream": lambda broker, key: broker.xadd(key, {CANARY: CANARY}),
}

#: The commands, with K in place of the key.
COMMANDS: Final = """
GET K; MGET K; GETRANGE K 0 -1; STRLEN K; SET K junk; SETNX K junk; SETEX K 60 junk; GETSET K junk; GETDEL K;
GETEX K; APPEND K junk; SETRANGE K 0 junk; INCR K; INCRBY K 5; DECR K; INCRBYFLOAT K 1; SETBIT K 1 1;
BITFIELD K SET u8 0 1; BITOP NOT K K; PFADD K junk; MSET K junk; MSETNX K junk; LPUSH K junk; RPUSH K junk;
LPUSHX K junk; RPUSHX K junk; LPOP K; RPOP K; LRANGE K 0 -1; LLEN K; LINDEX K 0; LREM K 0 junk; LSET K 0 junk;
LTRIM K 1 0; LINSERT K BEFORE junk junk; LPOS K junk; LMOVE K K LEFT RIGHT; RPOPLPUSH K K; LMPOP 1 K LEFT;
BLPOP K 0.001; BLMOVE K K LEFT RIGHT 0.001; SADD K junk; SREM K junk; SMEMBERS K; SPOP K; SRANDMEMBER K;
SISMEMBER K junk; SCARD K; SSCAN K 0; SUNIONSTORE K K; SMOVE K K junk; HSET K junk junk; HSETNX K junk junk;
HINCRBY K junk 1; HDEL K junk; HGETALL K; HKEYS K; HVALS K; HGET K junk; HMGET K junk; HLEN K; HSCAN K 0;
HRANDFIELD K; ZADD K 1 junk; ZREM K junk; ZRANGE K 0 -1; ZCARD K; ZPOPMIN K; ZINCRBY K 1 junk; ZSCAN K 0;
ZRANGEBYSCORE K -inf +inf; ZREMRANGEBYRANK K 0 -1; XADD K * junk junk; XRANGE K - +; XTRIM K MAXLEN 0; DEL K;
UNLINK K; EXISTS K; TYPE K; EXPIRE K 60; PEXPIRE K 60000; PERSIST K; TTL K; PTTL K; RENAME K renamed;
COPY K copied; DUMP K; MOVE K 9; SORT K; SORT K STORE K; OBJECT ENCODING K; MEMORY USAGE K; GEOADD K 1 1 junk;
TOUCH K; EXPIREAT K 1; LCS K K
"""


def steps(key: str) -> Iterator[tuple[str, ...]]:
    """Yield each command for a key."""
    for command in COMMANDS.split(";"):
        yield tuple(key if word == "K" else word for word in command.split())


def is_permitted(role: redis.Redis, command: tuple[str, ...]) -> tuple[bool, object]:
    """Run a command; return whether the role permits it, and the reply."""
    try:
        return True, role.execute_command(*command)
    except redis.exceptions.NoPermissionError:
        return False, None
    except redis.ResponseError as error:  # the role permits it, but the command does not apply to a value of this type
        return True, str(error)
