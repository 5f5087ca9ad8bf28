"""Operations: the Redis commands of both the blocking and the asyncio client, written once.

An operation is a generator that yields `Call`s and `Together`s, receives each reply or a `BrokerUnavailable`, and
returns its result. `producer.broker.connections` runs it and waits for the replies in a thread or a coroutine. The
other modules of this package contain the operations.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

from producer.errors import JobNotFound, QueueFull

T = TypeVar("T")
Server = Literal["broker", "results"]
Command = tuple[str | bytes | int, ...]

#: The wait that `QueueFull` advises. In this time a busy worker takes about a thousand messages.
RETRY_AFTER_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Call:
    """One Redis command. For EVAL, the server receives the script's text only if it does not have the script yet.

    Attributes:
        if_unanswered: text to add to the error if the command was sent but its reply did not arrive.
        if_failed: text to add to every error, which says what earlier calls of the operation have done.
        may_fail: whether the operation continues after a failure, with None as the reply.
    """

    server: Server
    command: Command
    if_unanswered: str = ""
    if_failed: str = ""
    may_fail: bool = False


@dataclass(frozen=True, slots=True)
class Together:
    """Several commands in one transaction (MULTI). The operation receives the list of their replies.

    The reply to a command on a key of the wrong type is None.

    Attributes:
        if_unanswered, if_failed, may_fail: the same as for `Call`.
    """

    server: Server
    commands: tuple[Command, ...]
    if_unanswered: str = ""
    if_failed: str = ""
    may_fail: bool = False


Operation = Generator[Call | Together, Any, T]


def server_time_us(server: Server) -> Operation[int]:
    """Return the time of a server's clock, in microseconds since the epoch."""
    seconds, microseconds = yield Call(server, ("TIME",))
    return int(seconds) * 1_000_000 + int(microseconds)


def not_found(job_id: str) -> JobNotFound:
    """Return the error for an id that is ``unknown``."""
    return JobNotFound(f"there is no job {job_id}, or its result has expired; check the id.")


def queue_full(list_name: str, max_queue: int, advice: str) -> QueueFull:
    """Return the error for a full queue."""
    return QueueFull(
        f"the queue {list_name} holds {max_queue:,} waiting messages or more (NAMESHOT_MAX_QUEUE); {advice}",
        RETRY_AFTER_S,
    )
