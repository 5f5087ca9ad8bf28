"""Write an ACL file with a role for each kind of program, for a Redis that other programs can reach.

The roles protect Redis and the workers' machines, not one producer from another: every producer may read and cancel
every job whose id it knows. Tests show that these rules are sufficient (the whole suite runs under them) and that each
command is necessary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from producer.contract import names

RoleName = Literal["producer", "worker", "observer", "web"]
#: All roles; the HTTP API's last.
ROLE_NAMES: Final[tuple[RoleName, ...]] = ("producer", "worker", "observer", "web")

#: The commands that every client of redis-py or kombu sends when it connects.
_GREETING: Final = ("client|setinfo", "client|setname", "ping", "select")
_LISTENING: Final = ("subscribe", "unsubscribe")


@dataclass(frozen=True, slots=True)
class Grant:
    """The permission to run some commands on some keys: a selector of Redis' ACL.

    Redis requires that one selector covers all keys of a command, and that it permits reading and writing every key of
    a script. Redis also checks each command that the script runs, so a grant of ``eval`` alone permits none of them.

    Attributes:
        keys: patterns; Redis applies them to every database.
        is_read: whether the grant is read-only.
    """

    keys: tuple[str, ...]
    commands: tuple[str, ...]
    is_read: bool = False

    def rules(self) -> str:
        """Return the selector in the syntax of an ACL file's ``user`` line."""
        sign = "%R~" if self.is_read else "~"
        return f"({' '.join((*(f'{sign}{key}' for key in self.keys), *(f'+{name}' for name in self.commands)))})"


@dataclass(frozen=True, slots=True)
class Role:
    """The permissions of one kind of program; Redis refuses everything else.

    Attributes:
        channels: patterns of pub/sub channels.
        plain: the permitted commands that name no key.
        grants: the permitted commands by their keys.
    """

    name: RoleName
    channels: tuple[str, ...]
    plain: tuple[str, ...]
    grants: tuple[Grant, ...]

    @property
    def commands(self) -> frozenset[str]:
        """All commands that the role may run, on whatever keys."""
        return frozenset(self.plain).union(*(grant.commands for grant in self.grants))

    def rules(self) -> str:
        """Return the role as the last part of an ACL file's ``user`` line."""
        channels = " ".join(f"&{channel}" for channel in self.channels)
        plain = " ".join(f"+{command}" for command in self.plain)
        grants = " ".join(grant.rules() for grant in self.grants)
        return f"clearselectors resetkeys resetchannels {channels} -@all {plain} {grants}"


class _Keys:
    """The patterns of all keys of one queue prefix."""

    def __init__(self, prefix: str) -> None:
        queues = [names.queue_name(prefix, queue) for queue in names.QUEUES]
        #: The lists for a plain Celery client's priorities: see `producer.contract.names.step_names`. Each question
        #: mark matches one control character, which an ACL file cannot contain.
        steps = [f"{name}{separator}[1-9]" for name in queues for separator in ("??", ":")]
        self.lists = (*queues, *steps)
        self.rung = tuple(map(names.rung_name, queues))
        self.counters = tuple(map(names.taken_name, queues))
        #: Kombu records each queue that a plain Celery client sends to.
        self.bindings = tuple(f"_kombu.{kind}.{name}" for kind in ("binding", "binding_permanent") for name in queues)
        #: Workers of the previous version also record their queues, under the first of these exchanges.
        exchanges = (names.queue_name(prefix, "default"), "celery.pidbox", "reply.celery.pidbox", "celeryev")
        self.remote_control = (
            "_kombu.binding_deadlines",
            *(f"_kombu.{kind}.{name}" for kind in ("binding", "binding_permanent") for name in exchanges),
        )
        self.embeddings = f"{prefix}:embeddings:*"
        self.claims = names.claim_key(prefix, "*")
        self.answers = names.answer_key("*")
        self.forgotten = names.forgotten_key("*")
        self.forget = names.forget_key(prefix)
        self.leases = names.lease_key(prefix, "*")
        self.in_flight = names.in_flight_key(prefix, "*")
        self.in_hand = names.in_hand_key(prefix)
        self.workers = names.workers_key(prefix)
        self.postponed = names.postponed_key(prefix)
        self.mixed = names.mixed_key(prefix)
        self.letters = names.dead_letters_key(prefix)
        self.letter_messages = names.dead_letter_messages_key(prefix)
        self.records = names.record_key(prefix, "*")
        self.open = names.open_key(prefix, "*")
        self.rates = names.rate_key(prefix, "*")
        self.own = f"{prefix}:*"
        self.alone = names.alone_key(prefix, "*")
        self.marks = (self.alone, names.looker_key(prefix), names.upkeep_key(prefix), self.mixed, self.leases)
        self.hashes = (self.in_flight, self.in_hand, names.suspects_key(prefix), self.letter_messages, self.embeddings)

    def seen_by_all(self) -> tuple[Grant, ...]:
        """Return the grants that every role has.

        They permit reading how many messages wait, how many each worker holds, and where the job with a known id is,
        but no message.
        """
        return (
            Grant((*self.lists, *self.rung), ("exists", "llen"), is_read=True),
            Grant((self.claims, *self.counters, self.leases), ("mget",), is_read=True),
            Grant((self.claims,), ("pttl",), is_read=True),
            Grant((self.in_flight,), ("hlen",), is_read=True),
            Grant((self.in_hand,), ("hmget",), is_read=True),
            Grant((self.workers,), ("smembers",), is_read=True),
            Grant((self.postponed,), ("zcard",), is_read=True),
            Grant((self.mixed,), ("exists",), is_read=True),
        )


def roles(prefix: str, database: int = 0) -> tuple[Role, ...]:
    """Return all roles, in the order of `ROLE_NAMES`, for one queue prefix, whose queues are in that database."""
    keys = _Keys(prefix)
    channels = (keys.answers, names.cancel_channel(prefix))
    # What submits jobs, reads and cancels them.
    producers = (
        *keys.seen_by_all(),
        # One script appends a message and claims its id.
        Grant((*keys.lists, *keys.rung, *keys.counters, keys.claims, keys.forget), ("eval", "evalsha")),
        Grant((*keys.lists, keys.forget), ("lpush",)),
        Grant((keys.claims,), ("del", "expire", "get", "set")),
        Grant(keys.counters, ("get",), is_read=True),
    )
    return (
        Role(
            "producer",
            channels,
            (*_GREETING, *_LISTENING, "exec", "hello", "info", "multi", "publish", "time"),
            (
                *producers,
                Grant((keys.answers, keys.forgotten), ("eval", "evalsha")),
                Grant((keys.answers,), ("get", "mget", "pexpire", "set")),
                Grant((keys.answers, keys.forgotten), ("del",)),
                Grant((keys.forgotten,), ("expire", "zadd", "zmscore", "zremrangebyscore")),
                Grant(keys.bindings, ("sadd", "smembers")),
            ),
        ),
        Role(
            "worker",
            # Redis permits a pattern subscription only if the grant is the same pattern. Kombu's patterns contain the
            # number of the broker's database.
            (*channels, f"/{database}.celery.pidbox", f"/{database}.celeryev/*"),
            (
                *(*_GREETING, "exec", "hello", "info", "multi", "psubscribe", "publish", "punsubscribe", "subscribe"),
                *("scan", "script|exists", "script|load", "time"),
            ),
            (
                Grant((*keys.lists, *keys.rung, *keys.counters, keys.own), ("eval", "evalsha", "exists", "type")),
                Grant(
                    (*keys.lists, *keys.rung),
                    ("blmove", "llen", "lpop", "lpush", "lrange", "lrem", "lset", "rpop", "rpush"),
                ),
                Grant((*keys.counters, keys.claims), ("get", "mget")),
                Grant(keys.counters, ("decr", "incr", "incrby")),
                Grant((*keys.marks, keys.claims), ("del", "expire", "get", "mget", "pexpire", "pttl", "set", "ttl")),
                Grant(
                    keys.hashes,
                    (
                        *("del", "expire", "hdel", "hexists", "hget", "hincrby", "hkeys", "hlen", "hmget"),
                        *("hscan", "hset"),
                    ),
                ),
                # These two commands belong to the previous version's script that takes over a dead worker's messages.
                # The script deletes these keys last: if Redis refused DEL, it would requeue the same messages forever.
                Grant((keys.in_flight,), ("hgetall",)),
                Grant((keys.in_flight, keys.alone, keys.leases), ("del",)),
                Grant((keys.workers,), ("sadd", "sismember", "smembers", "srem")),
                Grant((keys.postponed, f"{keys.embeddings}:used"), ("zadd", "zcard", "zrangebyscore", "zrem")),
                Grant((keys.letters, keys.forget), ("llen", "lpush", "lrange", "lrem", "rpop")),
                Grant((keys.answers, keys.forgotten), ("eval", "evalsha")),
                Grant((keys.answers,), ("get", "mget", "pexpire", "set")),
                Grant((keys.answers, keys.forgotten), ("del",)),
                Grant((keys.forgotten,), ("expire", "zadd", "zmscore", "zremrangebyscore")),
                # For Celery's remote control, kombu waits for replies on four lists, and records the lists and what it
                # has read from them.
                Grant(
                    ("*.celery.pidbox*", "celeryev.*", "unacked*", *keys.remote_control),
                    (
                        *("brpop", "del", "eval", "evalsha", "exists", "expire", "hdel", "hget", "hset", "llen"),
                        *("lpush", "sadd", "smembers", "srem", "zadd", "zrangebyscore", "zrem"),
                    ),
                ),
            ),
        ),
        Role(
            "observer",
            channels[:1],
            (*_GREETING, *_LISTENING, "exec", "info", "multi", "time"),
            (
                *keys.seen_by_all(),
                Grant((keys.answers,), ("mget",), is_read=True),
                Grant((keys.letters,), ("lrange",), is_read=True),
            ),
        ),
        Role(
            "web",
            channels,
            (*_GREETING, *_LISTENING, "exec", "info", "multi", "publish", "time"),
            (
                *producers,
                # Its scripts touch a job's answer and record together, and one MGET reads both.
                Grant((keys.answers, keys.forgotten, keys.records, keys.open, keys.rates), ("eval", "evalsha")),
                Grant((keys.answers, keys.records), ("get", "mget", "pexpire", "pttl", "set")),
                Grant((keys.records,), ("del",)),
                Grant((keys.open,), ("expire", "ttl", "zadd", "zcard", "zrange", "zrem")),
                Grant((keys.rates,), ("get", "set")),
                Grant((keys.answers, keys.forgotten), ("del",)),
                Grant((keys.forgotten,), ("expire", "zadd", "zmscore", "zremrangebyscore")),
            ),
        ),
    )


def acl_file(prefix: str, passwords: Mapping[RoleName, str], *, database: int = 0) -> str:
    """Return the lines of an ACL file: a user ``<prefix>-<role>`` for each password, and no default user.

    Args:
        prefix: the queue prefix.
        passwords: the password of each role that gets a user; the file holds only its SHA-256.
        database: the number of the database that holds the queues.
    """
    users = [
        f"user {user_name(prefix, role.name)} on #{hashlib.sha256(passwords[role.name].encode()).hexdigest()} "
        f"{role.rules()}"
        for role in roles(prefix, database)
        if role.name in passwords
    ]
    return "\n".join(["user default off", *users]) + "\n"


def user_name(prefix: str, role: RoleName) -> str:
    """Return the name of a role's user in Redis."""
    return f"{prefix}-{role}"
