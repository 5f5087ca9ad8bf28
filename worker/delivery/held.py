"""Acknowledges, requeues or postpones one message that a worker holds."""

from __future__ import annotations

from typing import Any

from worker.delivery.letter_records import put_back_arguments
from worker.delivery.names import DeliveryKeys
from worker.delivery.scripts import ACKNOWLEDGE, GIVE_BACK, POSTPONE


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
