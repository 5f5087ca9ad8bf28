"""What is read of Redis for all callers at once: how much waits, and whether Redis can be used."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

from producer.broker.connections import AsyncLink
from producer.contract.names import QUEUES
from producer.errors import BrokerUnavailable
from producer.operations.backlog import Backlog, backlog
from producer.operations.exchanges import Operation, Server, server_time_us
from producer.web.replies import rfc3339
from producer.web.speed import Speeds

#: A server that does not reply in this time makes the process not ready.
_READY_S: Final = 1.0


async def counted(
    run: Callable[[Operation[Backlog]], Awaitable[Backlog]], prefix: str, speeds: Speeds
) -> dict[str, Any]:
    """Return the JSON object of all queues."""
    found = await run(backlog(prefix))
    per_s = {queue: speeds.per_s(queue) for queue in QUEUES}
    return {
        "queues": {
            queue: {
                "waiting": found.waiting[queue],
                "taken_per_s": None if (speed := per_s[queue]) is None else round(speed, 2),
            }
            for queue in QUEUES
        },
        "running": found.in_hand + found.in_dead_hands,
        "workers": found.workers,
        "backlog": found.total,
        "as_of": rfc3339(datetime.now(UTC)),
    }


async def fault_of(link: AsyncLink) -> str:
    """Return why Redis cannot be used; empty if it can."""
    servers: tuple[tuple[Server, str], ...] = (("broker", "the broker"), ("results", "the result backend"))
    faults = await asyncio.gather(*(_fault(link, server, name) for server, name in servers))
    return " ".join(filter(None, faults))


async def _fault(link: AsyncLink, server: Server, name: str) -> str:
    try:
        async with asyncio.timeout(_READY_S):
            await link.run(server_time_us(server))
    except (BrokerUnavailable, TimeoutError):
        return f"{name} cannot be used."
    return ""
