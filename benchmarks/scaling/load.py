"""Asks for images without a pause, and measures meanwhile."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.scaling.costs import Reading
from benchmarks.scaling.device import Device
from producer import AsyncClient

LABELS = ["fox", "bear", "seagull", "owl"]
#: Images under way for each place in a batch: a worker holds three (on the device, ready, being downloaded), and as
#: many wait in the queue, so that no worker finds it empty.
IMAGES_PER_PLACE = 6
TIMEOUT_S = 120.0
#: The answers of one batch, at a few milliseconds each.
BATCH_ARRIVES_S = 0.1


@dataclass(frozen=True, slots=True)
class Load:
    """What the workers of a row are asked, and what they have.

    Attributes:
        images_per_message: 1 for single jobs, each awaited by a caller of its own.
        pictures: as in `benchmarks.scaling.worker`.
        is_lone: one image at a time, while all other workers wait.
    """

    name: str
    images_per_message: int
    device: Device
    pictures: str = "ready"
    is_lone: bool = False

    def images_under_way(self, workers: int) -> int:
        """How many the client has asked for and not got yet, at any moment."""
        return 1 if self.is_lone else workers * IMAGES_PER_PLACE * self.device.max_batch


class Answers:
    """Counts them."""

    def __init__(self) -> None:
        self.count = 0
        self._arrived = asyncio.Event()

    def add(self) -> None:
        """One more."""
        self.count += 1
        self._arrived.set()

    async def next_batch(self) -> None:
        """Wait until one has arrived, and those that come with it."""
        self._arrived.clear()
        await self._arrived.wait()
        await asyncio.sleep(BATCH_ARRIVES_S)


async def measured(
    client: AsyncClient,
    load: Load,
    url_of: Callable[[int], str],
    workers: int,
    read: Callable[[int], Reading],
    *,
    warm_up_s: float,
    window_s: float,
) -> tuple[Reading, Reading]:
    """Readings at the beginning and the end of a time of steady work.

    Both are taken after a batch, since answers come in batches. Returns once nothing is under way.

    Args:
        url_of: the URL of the picture with a number.
        read: takes the number of answers so far.
    """
    over = asyncio.Event()
    answers = Answers()

    def urls() -> Iterator[str]:
        for number in itertools.count():
            if over.is_set() and number % load.images_per_message == 0:
                return
            yield url_of(number)

    numbers = itertools.count()

    async def single_jobs() -> None:
        while not over.is_set():
            await client.classify(url_of(next(numbers)), LABELS, timeout=TIMEOUT_S)
            answers.add()

    async def bulk_messages() -> None:
        async for outcome in client.classify_many(
            urls(),
            LABELS,
            images_per_message=load.images_per_message,
            in_flight=load.images_under_way(workers) // load.images_per_message,
        ):
            if outcome.error is not None:
                raise outcome.error
            answers.add()

    async with asyncio.timeout(TIMEOUT_S), asyncio.TaskGroup() as asking:
        if load.images_per_message == 1:
            for _ in range(load.images_under_way(workers)):
                asking.create_task(single_jobs())
        else:
            asking.create_task(bulk_messages())
        await asyncio.sleep(warm_up_s)
        await answers.next_batch()
        before = read(answers.count)
        await asyncio.sleep(window_s)
        await answers.next_batch()
        after = read(answers.count)
        over.set()
    return before, after
