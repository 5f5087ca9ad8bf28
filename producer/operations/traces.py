"""The broker's records of one job: its claim, its place, and which worker holds or requeued its message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from producer.contract.names import QUEUES

#: Replaces the number in a place once a client has found the message lost. Without it the job would appear queued again
#: as soon as other messages wait whose numbers a foreign purge has set back.
LOST: Final = "lost"

#: A claim and its place get the same TTL in one step. If the TTLs differ by more than rounding, a client or worker of
#: an older version has changed only the claim, and the place belongs to an earlier message.
SAME_TTL_MS: Final = 1_500


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message waits or waited: a worker has taken it once its queue's counter has reached the number."""

    queue: str
    number: int
    life: str

    @classmethod
    def read(cls, value: bytes | None) -> Self | None:
        """Parse the value of a place key; None if no client wrote it."""
        parts = _words(value)
        if len(parts) != 3 or parts[0] not in QUEUES or not is_whole(parts[1]):
            return None
        return cls(parts[0], int(parts[1]), parts[2])


@dataclass(frozen=True, slots=True)
class JobTraces:
    """The broker's records of one job.

    Attributes:
        claim, place: the values of its keys.
        hand: its field in `in_hand_key`.
        is_stray: whether the place belongs to an earlier message.
    """

    claim: bytes | None = None
    place: bytes | None = None
    hand: bytes | None = None
    is_stray: bool = False

    @property
    def as_seen(self) -> tuple[bytes, bytes]:
        """Claim and place for a script that changes them only if they are unchanged; empty if absent."""
        return self.claim or b"", self.place or b""

    @property
    def life(self) -> str:
        """The life, which tells the message from others of the same id; empty if unknown."""
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
    def places(self) -> tuple[Place, ...]:
        """The places where the message may wait: where a worker requeued it, or where a client queued it.

        Either may belong to an earlier message of the same id, which was taken. The job waits if one was not taken.
        """
        if self.is_lost:
            return ()
        hand = (self.hand or b"").removeprefix(b"returned ") + b" returned"
        found = (Place.read(hand), None if self.is_stray else Place.read(self.place))
        return tuple(place for place in found if place is not None)


def is_stray(claim_ms: int, place_ms: int) -> bool:
    """Return whether a place belongs to an earlier message than its claim, by their TTLs in milliseconds."""
    return abs(claim_ms - place_ms) > SAME_TTL_MS


def _words(value: bytes | None) -> list[str]:
    return (value or b"").decode(errors="replace").split(" ")


def is_whole(text: str) -> bool:
    """Return whether a text is an integer that Redis can hold; a counter may be negative after an uncounted requeue."""
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 20
