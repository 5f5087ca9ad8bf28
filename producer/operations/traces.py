"""The broker's records of one job: its claim, where its message waits, and which worker holds or requeued it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from producer.contract.names import QUEUES

#: A client that finds a message lost writes this into the place key instead of the number. Numbers begin again at the
#: counter after another program has purged the queue, so the lost job would appear to wait behind new messages.
LOST: Final = "lost"

#: A script gives a claim and its place key the same TTL. If the two differ by more than the rounding, a client or
#: worker of an older version has changed only the claim, and the place key belongs to an earlier message.
SAME_TTL_MS: Final = 1_500


@dataclass(frozen=True, slots=True)
class Location:
    """Where a message waits or waited; a worker has taken it once its queue's counter has reached the number."""

    queue: str
    number: int
    life: str

    @classmethod
    def read(cls, value: bytes | None) -> Self | None:
        """Parse the value of a place key; return None if no client wrote it."""
        parts = _words(value)
        if len(parts) != 3 or parts[0] not in QUEUES or not is_whole(parts[1]):
            return None
        return cls(parts[0], int(parts[1]), parts[2])


@dataclass(frozen=True, slots=True)
class JobTraces:
    """The broker's records of one job.

    Attributes:
        claim, place: the values of the job's `claim_key` and `place_key`.
        hand: the value of the job's field in `in_hand_key`.
        is_stray: whether the place key belongs to an earlier message.
    """

    claim: bytes | None = None
    place: bytes | None = None
    hand: bytes | None = None
    is_stray: bool = False

    @property
    def as_seen(self) -> tuple[bytes, bytes]:
        """The values of both keys, empty if absent, for a script that acts only if both still have these values."""
        return self.claim or b"", self.place or b""

    @property
    def life(self) -> str:
        """The message's life (its delivery tag), which no other message of the id has; empty if unknown."""
        parts = _words(self.place)
        return parts[2] if len(parts) == 3 else ""

    @property
    def is_lost(self) -> bool:
        """Whether a client has already found the message lost."""
        return _words(self.place)[1:2] == [LOST]

    @property
    def is_held(self) -> bool:
        """Whether a worker holds the message or has postponed it."""
        return self.hand is not None and not self.hand.startswith(b"returned ")

    @property
    def locations(self) -> tuple[Location, ...]:
        """The locations where the message may wait: that of its last requeue, and that from the client.

        One of them may belong to an earlier message of the same id, which a worker has taken. The job waits if the
        queue's counter has not reached the number of at least one location.
        """
        if self.is_lost:
            return ()
        hand = (self.hand or b"").removeprefix(b"returned ") + b" returned"
        found = (Location.read(hand), None if self.is_stray else Location.read(self.place))
        return tuple(location for location in found if location is not None)


def is_stray(claim_ms: int, place_ms: int) -> bool:
    """Return whether the TTLs, in milliseconds, show that a place key is of an earlier message than its claim."""
    return abs(claim_ms - place_ms) > SAME_TTL_MS


def _words(value: bytes | None) -> list[str]:
    return (value or b"").decode(errors="replace").split(" ")


def is_whole(text: str) -> bool:
    """Return whether a text is an integer that Redis can hold, even a negative one.

    A counter becomes negative if workers requeue messages that were not counted.
    """
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 20
