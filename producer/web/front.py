"""What all requests of one process share: connections to Redis, keys, and what is known of the queues."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final, TypeVar

from starlette.requests import HTTPConnection

from producer.broker.connections import AsyncLink
from producer.client.configuration import Configuration, configure
from producer.client.ending_tasks import end
from producer.client.waiting import AnswerListener
from producer.errors import BrokerUnavailable
from producer.operations.exchanges import Operation
from producer.web.counts import counted, fault_of
from producer.web.fresh import Fresh
from producer.web.keys import Caller, Defaults, KeyRing, everybody
from producer.web.metrics import Metrics
from producer.web.places import Places
from producer.web.redis_turns import RedisTurns
from producer.web.settings import WebSettings
from producer.web.speed import SAMPLE_S, Speeds, taken

logger = logging.getLogger(__name__)
T = TypeVar("T")

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@dataclass(slots=True)
class WebFront:
    """The state of one process.

    Attributes:
        ring: the API's keys; None if the API needs none.
        stopping: set as soon as the process is to end.
        queues: what ``/v1/queues`` answers.
        places: the open streams of events.
        fault: why Redis cannot be used, empty if it can.
    """

    settings: WebSettings
    config: Configuration
    metrics: Metrics
    link: AsyncLink
    listener: AnswerListener
    ring: KeyRing | None
    stopping: asyncio.Event
    turns: RedisTurns = field(default_factory=RedisTurns)
    speeds: Speeds = field(default_factory=Speeds)
    queues: Fresh[dict[str, Any]] = field(init=False)
    fault: Fresh[str] = field(init=False)
    places: Places = field(init=False)

    def __post_init__(self) -> None:
        """Prepare the questions that are asked for all callers at once."""
        self.queues = Fresh(lambda: counted(self.run, self.prefix, self.speeds))
        self.fault = Fresh(lambda: fault_of(self.link))
        self.places = Places(self.settings.web_max_streams)

    async def run(self, operation: Operation[T]) -> T:
        """Run an operation in its turn; raises `BrokerUnavailable` if Redis does not reply in time."""
        async with self.turns.one():
            return await self.link.run(operation)

    @property
    def prefix(self) -> str:
        """The queue prefix."""
        return self.config.queue_prefix

    @property
    def root_path(self) -> str:
        """The path that stands before every path, because a proxy removes it."""
        return self.settings.web_root_path

    def everybody(self) -> Caller:
        """Return the caller of an API that needs no keys."""
        return everybody(defaults_of(self.settings))


def front_of(connection: HTTPConnection) -> WebFront:
    """Return what the requests of this process share."""
    front: WebFront = connection.state.front
    return front


def defaults_of(settings: WebSettings) -> Defaults:
    """Return what holds for a key whose line says nothing."""
    return Defaults(settings.web_rate, settings.web_max_waiting)


def ring_of(settings: WebSettings) -> KeyRing | None:
    """Read the keys file; return None if there is none. Raises `SettingsError`."""
    return KeyRing(Path(settings.web_keys_file), defaults_of(settings)) if settings.web_keys_file else None


@asynccontextmanager
async def running(settings: WebSettings, metrics: Metrics) -> AsyncIterator[WebFront]:
    """Connect for the time of the block; the connections open at their first use."""
    config = configure()
    link = AsyncLink(config.broker, config.results)
    listener = AnswerListener(link, config.queue_prefix)
    front = WebFront(settings, config, metrics, link, listener, ring_of(settings), asyncio.Event())
    sampling = asyncio.create_task(_sample(front))
    try:
        with _told_of_signals(front.stopping):
            yield front
    finally:
        front.stopping.set()
        await end([sampling])
        await front.queues.close()
        await front.fault.close()
        await listener.close()
        await link.close()


async def _sample(front: WebFront) -> None:
    """Read the counters of taken messages again and again, from which waits are estimated."""
    while True:
        try:
            front.speeds.add(await front.run(taken(front.prefix)))
        except BrokerUnavailable as error:
            logger.debug("could not read how many messages were taken: %s", error)
        await asyncio.sleep(SAMPLE_S)


@contextmanager
def _told_of_signals(stopping: asyncio.Event) -> Iterator[None]:
    """Set the event when a signal ends the server, which then waits for all responses; keep the server's handlers."""
    loop = asyncio.get_running_loop()
    before: dict[int, Any] = {number: signal.getsignal(number) for number in _SIGNALS}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stopping.set)
        if callable(before[number]):
            before[number](number, frame)

    for number in _SIGNALS:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in _SIGNALS:
            if signal.getsignal(number) is handle:
                signal.signal(number, before[number])
