"""Streams of server-sent events: the states of jobs as they advance.

A stream tells states, no log: it subscribes, looks up what stands, and sends that. So nothing is missed by a caller who
connects again, and nothing is stored for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Any, Final

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from producer.client.ending_tasks import end
from producer.client.waiters import ordinal
from producer.errors import BrokerUnavailable
from producer.operations.records import Seen
from producer.web.front import WebFront
from producer.web.keys import Caller
from producer.web.view import find, job_object
from producer.web.waiting import hung_up
from producer.web.watching import JobWatch, watching

#: Proxies close a connection that is silent for longer, often after a minute.
PING_S: Final = 15.0
#: A stream ends after this time, and the caller connects again: so connections spread over new processes.
LONGEST_S: Final = 600.0
#: Positions are looked at this often.
POSITION_S: Final = 1.0
#: After this long without Redis, the stream says so and ends.
OUTAGE_S: Final = 60.0
_HEADERS: Final = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}


def event(name: str, data: Any, event_id: str = "") -> bytes:
    """Return one event in the text format of the HTML standard."""
    return (b"id: " + event_id.encode() + b"\n" if event_id else b"") + (
        b"event: " + name.encode() + b"\ndata: " + to_json(data) + b"\n\n"
    )


class EventStream(Response):
    """A response that sends events until they end, the caller hangs up or the server ends.

    Args:
        several: whether the ids of events also name the job.
        after: the last state that the caller has, of a stream of one job.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        request: Request,
        front: WebFront,
        caller: Caller,
        job_ids: Sequence[str],
        *,
        missing: Sequence[str] = (),
        several: bool = False,
        after: int = 0,
    ) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._request = request
        self._front = front
        self._caller = caller
        self._several = several
        self._missing = missing
        self._sent = dict.fromkeys(job_ids, after)
        self._positions: dict[str, int | None] = {}
        self._seen: dict[str, Seen] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - the interface of ASGI
        """Send the response."""
        with self._front.places.taken(self._caller.kid), self._front.metrics.streams.track_inprogress():
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with aclosing(self._events()) as events:
                async for part in events:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _events(self) -> AsyncGenerator[bytes, None]:
        front = self._front
        yield b"retry: 2000\n\n"
        if self._missing:
            yield event("missing", {"missing": list(self._missing)})
        began_s = spoken_s = time.monotonic()
        silent_since_s: float | None = None
        async with watching(front.listener, self._sent) as watch:
            ends = [asyncio.create_task(part) for part in (self._hung_up(watch), self._stopped(watch))]
            try:
                while self._sent:
                    now_s = time.monotonic()
                    if ends[0].done():
                        return
                    if front.stopping.is_set() or now_s - began_s >= LONGEST_S:
                        yield b"retry: 500\n\n" if front.stopping.is_set() else b": again\nretry: 100\n\n"
                        return
                    if watch.failed or (silent_since_s is not None and now_s - silent_since_s > OUTAGE_S):
                        yield event("error", {"code": "unavailable"})
                        return
                    try:
                        parts = await self._news(watch)
                        silent_since_s = None
                    except BrokerUnavailable:
                        parts, silent_since_s = [], silent_since_s or now_s
                    if not parts and now_s - spoken_s >= PING_S:
                        parts = [b": ping\n\n"]
                    for part in parts:
                        spoken_s = time.monotonic()
                        yield part
                    if self._sent:
                        await watch.wait(POSITION_S if self._positions or silent_since_s else PING_S)
                yield event("end", {})
            finally:
                await end(ends)

    async def _news(self, watch: JobWatch) -> list[bytes]:
        """Return the events of what has changed."""
        changed = [job_id for job_id in self._sent if job_id in watch.changed]
        parts: list[bytes] = []
        if changed:
            watch.changed.difference_update(changed)  # first: a job may change again during the look
            try:
                found = await find(self._front, self._caller, changed)
            except BrokerUnavailable:
                watch.changed.update(changed)
                raise
            for job_id in changed:
                parts += self._state(job_id, found.get(job_id))
        return [*parts, *self._moved()]

    def _state(self, job_id: str, seen: Seen | None) -> Iterator[bytes]:
        if seen is None or seen.answer.is_deleted:
            del self._sent[job_id]
            self._positions.pop(job_id, None)
            yield event("missing", {"missing": [job_id]})
            return
        reached = ordinal(seen.answer.state)
        if reached > self._sent[job_id]:
            self._sent[job_id] = reached
            number = f"{job_id}.{reached}" if self._several else str(reached)
            yield event("state", job_object(self._front, job_id, seen), number)
        self._positions.pop(job_id, None)
        if reached == 1 and seen.record is not None:
            self._positions[job_id] = seen.standing.ahead
            self._seen[job_id] = seen
        if seen.answer.is_terminal:
            del self._sent[job_id]

    def _moved(self) -> Iterator[bytes]:
        """Yield the new positions, from the counters that the process reads for all its streams."""
        for job_id, last in self._positions.items():
            seen = self._seen[job_id]
            position = self._front.speeds.position(seen.standing.traces.locations)
            if position is None or last is None or position >= last:
                continue
            self._positions[job_id] = position
            wait_s = self._front.speeds.wait_s(seen.record.queue if seen.record else None, position)
            yield event("position", {"id": job_id, "position": position, "estimated_wait_s": wait_s})

    async def _hung_up(self, watch: JobWatch) -> None:
        await hung_up(self._request)
        watch.wake()

    async def _stopped(self, watch: JobWatch) -> None:
        await self._front.stopping.wait()
        watch.wake()
