"""Moves messages with the scripts: one that a worker holds, all of a dead worker, or the postponed ones that are due.

A function that requeues many messages runs its script several times, but begins no further run after the time that its
caller allows; the next call continues. If Redis refuses to requeue a message, that message stays where it is until the
next call, and the function requeues the others.
"""

from __future__ import annotations

import logging
import math
import time
from typing import Any, Final, Literal

import redis

from worker.delivery.letter_records import put_back_arguments
from worker.delivery.names import DeliveryKeys
from worker.delivery.scripts import ACKNOWLEDGE, GIVE_BACK, POSTPONE, RECLAIM, RESUME

logger = logging.getLogger(__name__)

#: One run of a script requeues at most this many messages, or this many bytes plus one message, since Redis serves no
#: other client meanwhile. A hundred ordinary messages take a few milliseconds; parsing a megabyte of the costliest JSON
#: takes a tenth of a second.
RECLAIMED: Final = 100
RECLAIMED_BYTES: Final = 1024 * 1024
#: The counts of deaths expire a day after the last death that they count, unless answers have cleared them earlier.
SUSPICION_S: Final = 86_400


def acknowledge(client: Any, keys: DeliveryKeys, tag: str | bytes) -> Any:
    """Delete a held message; return 0 if the worker no longer holds it."""
    return client.eval(ACKNOWLEDGE, 2, keys.in_flight, keys.in_hand, tag, keys.worker)


def give_back(client: Any, keys: DeliveryKeys, tag: str | bytes) -> Any:
    """Requeue a held message at the front of its queue; return 0 if the worker no longer holds it."""
    names = (keys.in_flight, *keys.put_back)
    return client.eval(GIVE_BACK, len(names), *names, tag, *put_back_arguments())


def postpone(client: Any, keys: DeliveryKeys, tag: str | bytes, until_s: float) -> Any:
    """Postpone a held message until a time in seconds since the epoch; return 0 if the worker no longer holds it."""
    return client.eval(POSTPONE, 3, keys.in_flight, keys.in_hand, keys.postponed, tag, until_s)


def postpone_for(client: Any, keys: DeliveryKeys, tag: str | bytes, seconds: float) -> Any:
    """Postpone a held message for some seconds from now on; return 0 if the worker no longer holds it."""
    return client.eval(POSTPONE, 3, keys.in_flight, keys.in_hand, keys.postponed, tag, seconds, "from now")


def resume(client: Any, keys: DeliveryKeys, *, ends_at_s: float = math.inf) -> int:
    """Requeue postponed messages that are due by Redis's clock; return their number.

    Args:
        ends_at_s: a time of the monotonic clock after which no further run of the script begins.

    Raises:
        RedisError: the broker failed, or it refused to requeue some messages; the others were requeued.
    """
    names = (keys.postponed, *keys.put_back)
    total, refused, reason, moved = 0, 0, b"", 1
    while moved:
        moved, newly, why = client.eval(RESUME, len(names), *names, *put_back_arguments(), refused)
        total, refused, reason = total + moved, refused + newly, why or reason
        moved = moved + newly if time.monotonic() < ends_at_s else 0
    _raise_if_refused(refused, reason)
    return total


def reclaim(
    client: Any, keys: DeliveryKeys, how: Literal["dead", "gone", "leaving"], *, ends_at_s: float = math.inf
) -> int:
    """Requeue the messages of a worker; return their number, or -1 if the worker lives.

    Args:
        keys: the keys of that worker.
        how: ``dead`` if its lease has expired; ``gone`` if its process has ended, or is about to end and that counts as
            a death; ``leaving`` if it is the caller itself, whose end counts as no death.
        ends_at_s: as for `resume`.

    Raises:
        RedisError: the broker failed, or it refused to requeue some messages; the others were requeued.
    """
    names = (keys.in_flight, *keys.put_back, keys.lease, keys.workers, keys.alone, keys.suspects)
    options = (keys.worker, how, SUSPICION_S, *put_back_arguments(), RECLAIMED, RECLAIMED_BYTES)
    total, refused, reason, left = 0, 0, b"", 1
    while left:
        moved, newly, left, why = client.eval(RECLAIM, len(names), *names, *options, refused)
        total, refused, reason = total + moved, refused + newly, why or reason
        if time.monotonic() >= ends_at_s:
            break
    if total > 0 and how != "leaving":
        logger.warning("a worker has died: requeued the %d jobs that it held", total)
    elif total > 0:
        logger.info("requeued %d jobs", total)
    _raise_if_refused(refused, reason)
    return total


def _raise_if_refused(refused: int, reason: bytes) -> None:
    if refused:
        raise redis.ResponseError(reason.decode(errors="replace"))
