"""Recognises replies of Redis that do not fit their commands.

A proxy in front of Redis may answer in Redis' place, or pass on a surplus reply, after which each command on that
connection gets its predecessor's reply. Such a reply counts as an outage: the worker drops the connection and tries
again on another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from redis.exceptions import InvalidResponse

from worker.delivery.names import beginning_of
from worker.delivery.taken import Deaths


class MalformedReply(InvalidResponse):
    """Raised for a reply that does not fit its command."""


@contextmanager
def well_formed(drop: Callable[[], object]) -> Iterator[None]:
    """Raise `MalformedReply` if a reply cannot be read within this context.

    Args:
        drop: drops the connection, whose next replies cannot be trusted either.
    """
    try:
        yield
    except InvalidResponse:
        drop()
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        drop()
        # The error's text may hold a part of the reply.
        raise MalformedReply("a reply does not fit its command") from None


def drop_idle(client: Any) -> None:
    """Drop a client's idle connections, one of which has just had a malformed reply."""
    client.connection_pool.disconnect(inuse_connections=False)


@dataclass(frozen=True, slots=True)
class TakenMessage:
    """A message as the script `worker.delivery.scripts.TAKE` returns it.

    Attributes:
        raw: its bytes; empty if it is too large to be returned.
        known_as: the field in which Redis counts the deaths of workers that had this job in hand; empty if unknown.
    """

    queue: str
    raw: bytes
    deaths: Deaths
    size_bytes: int
    tag: str
    known_as: bytes

    @classmethod
    def read(cls, reply: Any, tag: str | None) -> Self:
        """Read a reply that holds a message.

        Args:
            tag: the beginning of the delivery tag that the command gave to the message.

        Raises:
            TypeError, ValueError: the reply is none to that command.
        """
        queue, raw, deaths, alone, size_bytes, own_tag, known_as = reply
        message = cls(queue.decode(), raw, Deaths(int(deaths), int(alone)), int(size_bytes), own_tag.decode(), known_as)
        if beginning_of(message.tag) != tag or not isinstance(raw, bytes) or not isinstance(known_as, bytes):
            raise ValueError
        return message
