"""Wait for a job's answer on behalf of a request, which may hang up, in a server that may end."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from producer.client.ending_tasks import end
from producer.web.front import WebFront


async def wait_for_end(front: WebFront, request: Request, job_id: str, wait_s: int) -> None:
    """Return when the job has a terminal answer, after the time, or when the caller hangs up or the server ends."""
    if not wait_s or front.stopping.is_set():
        return
    waits = [asyncio.create_task(wait) for wait in (_answered(front, job_id), _stopped(front), hung_up(request))]
    with front.metrics.waiting.track_inprogress():
        try:
            await asyncio.wait(waits, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end(waits)


async def _answered(front: WebFront, job_id: str) -> None:
    # If Redis is down for long, this raises; the look that follows then says so.
    await front.listener.wait(job_id)


async def _stopped(front: WebFront) -> None:
    await front.stopping.wait()


async def hung_up(request: Request) -> None:
    """Return when the caller has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
