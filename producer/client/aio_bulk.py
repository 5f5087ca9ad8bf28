"""The stream of `AsyncClient.classify_many`: the plan of `producer.client.bulk`, waited for by tasks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable

from producer.client.bulk import RETRY_PAUSE_S, Reorderer, RetryPolicy
from producer.client.portions import BulkMessage, BulkOutcome, BulkPlan
from producer.errors import BrokerUnavailable, JobNotFound, NameshotError, QueueFull
from producer.messages.submission import Submission
from producer.operations.answers import Answer

logger = logging.getLogger(__name__)


async def run_bulk(
    plan: BulkPlan,
    urls: Iterable[str] | AsyncIterable[str],
    *,
    submit: Callable[[list[Submission]], Awaitable[object]],
    wait: Callable[[str], Awaitable[Answer]],
    cancel: Callable[[str], Awaitable[bool]],
) -> AsyncGenerator[BulkOutcome, None]:
    """Outcomes as they finish, or in order.

    One task reads and sends, one waits for each message under way, and the generator only hands out what has
    finished: a slow source of URLs holds up nothing that is done.
    """
    order = Reorderer(ordered=plan.ordered)
    places = asyncio.Semaphore(plan.in_flight)
    finished: asyncio.Queue[tuple[BulkMessage, Answer | None] | None] = asyncio.Queue()
    unanswered: dict[int, str] = {}

    patience = RetryPolicy()

    async def follow(portion: BulkMessage, job_id: str) -> None:
        while portion.is_lost(answer := await wait(job_id)):
            portion = plan.again(portion)
            await _submit_patiently(portion, submit, patience)
        del unanswered[portion.start]
        finished.put_nowait((portion, answer))

    async def send_all() -> None:
        async with asyncio.TaskGroup() as followers:
            async for portion in _portions(plan, urls):
                await places.acquire()
                if portion.submission is None:
                    finished.put_nowait((portion, None))
                    continue
                unanswered[portion.start] = portion.submission.job_id
                await _submit_patiently(portion, submit, patience)
                followers.create_task(follow(portion, portion.submission.job_id))

    sending = asyncio.create_task(send_all())
    sending.add_done_callback(lambda _: finished.put_nowait(None))
    try:
        while (item := await finished.get()) is not None:
            portion, answer = item
            for outcomes in order.release(portion.outcomes(answer)):
                for outcome in outcomes:
                    yield outcome
                places.release()
        try:
            sending.result()
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await _cancel_rest(list(unanswered.values()), cancel)


async def _submit_patiently(
    portion: BulkMessage, submit: Callable[[list[Submission]], Awaitable[object]], patience: RetryPolicy
) -> None:
    while portion.submission is not None:
        try:
            await submit([portion.submission])
        except (QueueFull, BrokerUnavailable) as error:
            patience.refused(error)
            await asyncio.sleep(RETRY_PAUSE_S)
        else:
            patience.sent()
            return


async def _cancel_rest(job_ids: list[str], cancel: Callable[[str], Awaitable[bool]]) -> None:
    """As `producer.client.bulk.cancel_rest`."""
    for job_id in job_ids:
        try:
            await cancel(job_id)
        except JobNotFound:
            continue
        except NameshotError as error:
            logger.warning("bulk: could not cancel the messages under way: %s", error)
            return


async def _portions(plan: BulkPlan, urls: Iterable[str] | AsyncIterable[str]) -> AsyncIterator[BulkMessage]:
    if not isinstance(urls, AsyncIterable):
        for portion in plan.portions(urls):
            yield portion
        return
    start = 0
    images: list[str] = []
    async for url in urls:
        images.append(url)
        if len(images) == plan.images_per_message:
            yield plan.portion(start, images)
            start += len(images)
            images = []
    if images:
        yield plan.portion(start, images)
