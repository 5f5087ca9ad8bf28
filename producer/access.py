"""Who may do what in a Redis that others can reach: three roles, as an ACL file.

The roles guard Redis and the machines behind it, not one producer from another: every producer may read and cancel
every job whose id it knows. A test finds each of these rules sufficient (the whole suite runs under them), and each
command necessary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from producer.contract import (
    QUEUES,
    answer_key,
    cancel_channel,
    claim_key,
    dead_letters_key,
    forget_key,
    in_flight_key,
    in_hand_key,
    lease_key,
    mixed_key,
    postponed_key,
    queue_name,
    taken_name,
    workers_key,
)

RoleName = Literal["producer", "worker", "observer"]

#: What every client of redis-py or kombu says when it connects.
_GREETING: Final = ("client|setinfo", "client|setname", "hello", "ping", "select")
_LISTENING: Final = ("subscribe", "unsubscribe")


@dataclass(frozen=True, slots=True)
class Role:
    """What one kind of program may do.

    Attributes:
        keys: rules of Redis' ACL, ``~pattern`` or ``%R~pattern``; ACLs do not tell databases apart.
        channels: patterns of pub/sub channels.
        commands: everything else is refused. `HELLO` brings user and password, so it needs no permission.
        appends_to: keys, not among `keys`, that it may only append to and ask the length of: `SET`, `EXPIRE` or `SADD`
            would destroy a queue. Redis wants all keys of a script in one selector: they are those of submitting.
    """

    name: RoleName
    keys: tuple[str, ...]
    channels: tuple[str, ...]
    commands: tuple[str, ...]
    appends_to: tuple[str, ...] = ()

    def rules(self) -> str:
        """The role as the last part of a ``user`` line."""
        keys = " ".join(self.keys)
        channels = " ".join(f"&{channel}" for channel in self.channels)
        commands = " ".join(f"+{command}" for command in self.commands)
        selector = f" ({' '.join(self.appends_to)} +eval +exists +llen +lpush)" if self.appends_to else ""
        return f"clearselectors resetkeys {keys} resetchannels {channels} -@all {commands}{selector}"


def roles(prefix: str, database: int = 0) -> tuple[Role, Role, Role]:
    """Producer, worker and observer of one queue prefix, whose queues are in that database."""
    # With the star, since a plain Celery client asks for the length of each queue's priority steps, and ours for that
    # of `rung_name`.
    queues = tuple(f"~{queue_name(prefix, queue)}*" for queue in QUEUES)
    by_worker = (lease_key(prefix, "*"), in_flight_key(prefix, "*"))
    of_all = (workers_key(prefix), in_hand_key(prefix), postponed_key(prefix), mixed_key(prefix))
    watched = tuple(f"%R~{key}" for key in (*by_worker, *of_all))
    counters = tuple(f"%R~{taken_name(queue_name(prefix, queue))}" for queue in QUEUES)
    answers, claims = answer_key("*"), f"~{claim_key(prefix, '*')}"
    return (
        Role(
            "producer",
            # kombu notes each queue that it sends to.
            (claims, f"~{answers}", f"~_kombu.binding*{prefix}.*", *watched, *counters),
            (answers, cancel_channel(prefix)),
            (
                *_GREETING,
                *_LISTENING,
                *("del", "eval", "exec", "exists", "expire", "get", "hlen", "hmget", "info", "llen", "lpush", "mget"),
                *("multi", "pexpire", "pttl", "publish", "sadd", "set", "sismember", "smembers", "zcard"),
            ),
            appends_to=(*queues, claims, f"~{forget_key(prefix)}"),
        ),
        Role(
            "worker",
            # The last three are Celery's remote control, by which plain clients revoke jobs.
            (*queues, f"~{prefix}:*", f"~{answers}", "~_kombu.binding*", "~*.celery.pidbox", "~unacked*"),
            # A subscription to a pattern needs that very pattern, and kombu's name the broker's database.
            (answers, cancel_channel(prefix), f"/{database}.celery.pidbox", f"/{database}.celeryev/worker.*"),
            (
                *_GREETING,
                *(
                    "blmove",
                    "decr",
                    "del",
                    "eval",
                    "evalsha",
                    "exec",
                    "exists",
                    "expire",
                    "get",
                    "hdel",
                    "hexists",
                    "hget",
                ),
                *(
                    "hgetall",
                    "hincrby",
                    "hkeys",
                    "hlen",
                    "hmget",
                    "hscan",
                    "hset",
                    "incr",
                    "incrby",
                    "info",
                    "lindex",
                    "llen",
                ),
                *("lpop", "lpush", "lrange", "lrem", "mget", "multi", "pexpire", "psubscribe", "pttl", "publish"),
                *(
                    "punsubscribe",
                    "rpop",
                    "rpush",
                    "sadd",
                    "script|exists",
                    "script|load",
                    "set",
                    "sismember",
                    "smembers",
                ),
                *("srem", "subscribe", "time", "ttl", "type", "zadd", "zcard", "zrangebyscore", "zrem"),
            ),
        ),
        Role(
            "observer",
            (
                *(f"%R{queue}" for queue in queues),
                *watched,
                f"%R~{claim_key(prefix, '*')}",
                f"%R~{answers}",
                f"%R~{dead_letters_key(prefix)}",
            ),
            (answers,),
            (
                *(*_GREETING, *_LISTENING, "exec", "exists", "hlen", "hmget", "info", "llen", "lrange", "mget"),
                *("multi", "pttl", "smembers", "zcard"),
            ),
        ),
    )


def acl_file(prefix: str, passwords: Mapping[RoleName, str], *, database: int = 0) -> str:
    """The lines of an ACL file: a user ``<prefix>-<role>`` for each password, and nobody without one.

    Args:
        prefix: the queue prefix.
        passwords: by role; only their SHA-256 goes into the file.
        database: the broker's, where the queues are.
    """
    users = [
        f"user {user_name(prefix, role.name)} on #{hashlib.sha256(passwords[role.name].encode()).hexdigest()} "
        f"{role.rules()}"
        for role in roles(prefix, database)
        if role.name in passwords
    ]
    return "\n".join(["user default off", *users]) + "\n"


def user_name(prefix: str, role: RoleName) -> str:
    """What a role's user is called in Redis."""
    return f"{prefix}-{role}"
