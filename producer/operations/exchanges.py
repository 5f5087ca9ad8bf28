"""What is said to Redis, once for the blocking and the asyncio client.

An operation is a generator of `Call`s and `Together`s: it is sent each reply, or `BrokerUnavailable` is thrown into it,
and returns its result. What drives it decides whether a thread or a coroutine waits; see `producer.broker.connections`.
The operations themselves are in modules of their own: `producer.operations.submitting`, `producer.operations.standing`,
`producer.operations.ending`, `producer.operations.backlog`, `producer.operations.purging`,
`producer.operations.dead_letters`.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

from producer.errors import JobNotFound, QueueFull

T = TypeVar("T")
Server = Literal["broker", "results"]
Command = tuple[str | bytes | int, ...]

#: What `QueueFull` advises: a busy worker frees some thousand places in this time, an idle queue needs none.
RETRY_AFTER_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Call:
    """One Redis command.

    Attributes:
        if_unanswered: what to add to the error when the command was sent and the connection broke before its reply.
        if_failed: what to add to every error, since earlier calls of the operation have had their effect.
        may_fail: whether the operation goes on without: the reply is then None.
    """

    server: Server
    command: Command
    if_unanswered: str = ""
    if_failed: str = ""
    may_fail: bool = False


@dataclass(frozen=True, slots=True)
class Together:
    """Several commands between which Redis serves no other client (MULTI); the reply is the list of theirs.

    The reply of a command on a key of a wrong kind is None.

    Attributes:
        if_unanswered, if_failed, may_fail: as those of `Call`.
    """

    server: Server
    commands: tuple[Command, ...]
    if_unanswered: str = ""
    if_failed: str = ""
    may_fail: bool = False


Operation = Generator[Call | Together, Any, T]


def not_found(job_id: str) -> JobNotFound:
    """The error for an id that is ``unknown``."""
    return JobNotFound(f"there is no job {job_id}, or its result has outlived its time; check the id.")


def queue_full(list_name: str, max_queue: int, advice: str) -> QueueFull:
    """The error for a queue that takes no more."""
    return QueueFull(
        f"the queue {list_name} holds {max_queue:,} waiting messages or more (NAMESHOT_MAX_QUEUE); {advice}",
        RETRY_AFTER_S,
    )
