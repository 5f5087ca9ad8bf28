"""Submits images without a pause, and measures meanwhile."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.scaling.costs import Reading
from benchmarks.scaling.device import Device
from producer import AsyncClient

LABELS = ["fox", "bear", "seagull", "owl"]
#: The number of unanswered images for each image in a full batch: a worker holds three (on the device, ready, being
#: downloaded), and as many wait in the queue, so that no worker finds the queue empty.
IMAGES_PER_PLACE = 6
TIMEOUT_S = 120.0
#: All answers of one batch arrive within this time, at a few milliseconds each.
BATCH_ARRIVES_S = 0.1


@dataclass(frozen=True, slots=True)
class Load:
    """The jobs and the device of a row's workers.

    Attributes:
        images_per_message: 1 for single jobs, for each of which a separate caller waits.
        pictures: as in `benchmarks.scaling.worker`.
        is_lone: whether there is one job at a time, while all other workers wait.
    """

    name: str
    images_per_message: int
    device: Device
    pictures: str = "ready"
    is_lone: bool = False

    def images_under_way(self, workers: int) -> int:
        """Return how many submitted images have no answer yet, at any moment."""
        return 1 if self.is_lone else workers * IMAGES_PER_PLACE * self.device.max_batch


class Answers:
    """Counts answers."""

    def __init__(self) -> None:
        self.count = 0
        self._arrived = asyncio.Event()

    def add(self) -> None:
        """Count one more answer."""
        self.count += 1
        self._arrived.set()

    async def next_batch(self) -> None:
        """Wait until an answer and the others of its batch have arrived."""
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
    """Run a load; return readings at the beginning and the end of a time of steady work.

    Both are taken after a batch, since answers arrive in batches. The function returns once all images are answered.

    Args:
        url_of: returns the URL of the picture with this number.
        read: returns a reading; takes the number of answers so far.
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
