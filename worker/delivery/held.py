"""What becomes of one message that a worker holds: the calls of the scripts, for the transport and the lease alike."""

from __future__ import annotations

from typing import Any

from worker.delivery.dead_letters import put_back_arguments
from worker.delivery.names import DeliveryKeys
from worker.delivery.scripts import ACKNOWLEDGE, GIVE_BACK


def acknowledge(client: Any, keys: DeliveryKeys, tag: str | bytes) -> Any:
    """Forget a message for good; returns 0 when the worker does not hold it any more."""
    return client.eval(ACKNOWLEDGE, 2, keys.in_flight, keys.in_hand, tag, keys.worker)


def give_back(client: Any, keys: DeliveryKeys, tag: str | bytes) -> Any:
    """Put a message back to the front of its queue; returns 0 when the worker does not hold it any more."""
    names = (keys.in_flight, *keys.put_back)
    return client.eval(GIVE_BACK, len(names), *names, tag, *put_back_arguments())
