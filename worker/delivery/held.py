"""Acknowledges or requeues one message that a worker holds; both the transport and the lease call this."""

from __future__ import annotations

from typing import Any

from worker.delivery.dead_letters import put_back_arguments
from worker.delivery.names import DeliveryKeys
from worker.delivery.scripts import ACKNOWLEDGE, GIVE_BACK


def acknowledge(client: Any, keys: DeliveryKeys, tag: str | bytes) -> Any:
    """Delete a held message; return 0 if the worker no longer holds it."""
    return client.eval(ACKNOWLEDGE, 2, keys.in_flight, keys.in_hand, tag, keys.worker)


def give_back(client: Any, keys: DeliveryKeys, tag: str | bytes) -> Any:
    """Requeue a held message at the front of its queue; return 0 if the worker no longer holds it."""
    names = (keys.in_flight, *keys.put_back)
    return client.eval(GIVE_BACK, len(names), *names, tag, *put_back_arguments())
