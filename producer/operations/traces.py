"""The broker's records of one job: its claim, where its message waits, and which worker holds or requeued it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from producer.contract.names import QUEUES

#: A client that finds a message lost writes this into the place key instead of the number. After another program has
#: purged the queue, new messages get the numbers of the purged ones, so the lost job would seem to wait behind them.
LOST: Final = "lost"

#: A script gives a claim and its place key the same TTL. If the two TTLs differ by more than rounding, a client or
#: worker of an older version has changed only the claim, and the place key belongs to an earlier message.
SAME_TTL_MS: Final = 1_500


#: A job without an answer counts as expired this long after its ``expires_in``, because a worker's estimate of Redis's
#: clock may be behind by half of a round trip: a worker that takes the message in the meantime may still run the job.
EXPIRY_GRACE_S: Final = 5


@dataclass(frozen=True, slots=True)
class Location:
    """Where a message waits or waited; a worker has taken it once its queue's counter has reached the number.

    Attributes:
        life: the delivery tag with which the client sent the message.
        expires_s: when the job expires, in whole seconds since the epoch by the broker's clock; None if it never does.
    """

    queue: str
    number: int
    life: str
    expires_s: int | None = None

    @classmethod
    def read(cls, value: bytes | None) -> Self | None:
        """Parse the value of a place key; return None if no client wrote it."""
        parts = _words(value)
        if len(parts) not in (3, 4) or parts[0] not in QUEUES or not all(map(is_whole, parts[1:-1])):
            return None
        return cls(parts[0], int(parts[1]), parts[-1], int(parts[2]) if len(parts) == 4 else None)


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
        return parts[-1] if len(parts) in (3, 4) else ""

    @property
    def is_lost(self) -> bool:
        """Whether a client has already found the message lost."""
        return _words(self.place)[1:2] == [LOST]

    @property
    def is_held(self) -> bool:
        """Whether a worker holds the message or has postponed it."""
        return self.hand is not None and not self.hand.startswith(b"returned ")

    def is_expired(self, now_s: int) -> bool:
        """Return whether no worker will start the job, because it expired while its message waited or was postponed.

        Args:
            now_s: the broker's time, in seconds since the epoch.
        """
        sent = Location.read(self.place) if self.claim and not self.is_stray else None
        if sent is None or sent.expires_s is None or now_s < sent.expires_s + EXPIRY_GRACE_S:
            return False
        return not self.is_held or (self.hand or b"").startswith(b"postponed ")

    @property
    def locations(self) -> tuple[Location, ...]:
        """The locations where the message may wait: that of its last requeue, and that which the client recorded.

        One of them may belong to an earlier message of the same id, which a worker has taken. The job waits if the
        queue's counter has not reached the number of at least one location.
        """
        if self.is_lost:
            return ()
        hand = (self.hand or b"").removeprefix(b"returned ") + b" returned"
        found = (Location.read(hand), None if self.is_stray else Location.read(self.place))
        return tuple(location for location in found if location is not None)


def is_stray(claim_ms: int, place_ms: int) -> bool:
    """Return whether the TTLs, in milliseconds, show that a place key belongs to an earlier message than its claim."""
    return abs(claim_ms - place_ms) > SAME_TTL_MS


def _words(value: bytes | None) -> list[str]:
    return (value or b"").decode(errors="replace").split(" ")


def is_whole(text: str) -> bool:
    """Return whether a text is an integer that Redis can hold, even a negative one.

    A counter becomes negative if workers requeue messages that were not counted.
    """
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 20


def counter_of(value: bytes | None) -> int:
    """Return the value of a queue's `taken_name` key; 0 if the key is missing or holds no integer."""
    text = (value or b"").decode(errors="replace")
    return int(text) if is_whole(text) else 0
