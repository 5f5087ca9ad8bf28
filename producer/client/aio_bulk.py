"""The stream of `AsyncClient.classify_many`: like `producer.client.bulk`, but with tasks instead of callbacks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable

from producer.client.bulk import RETRY_PAUSE_S, Reorderer, RetryPolicy
from producer.client.portions import BulkMessage, BulkOutcome, BulkPlan
from producer.errors import BrokerUnavailable, QueueFull
from producer.messages.submission import Submission
from producer.operations.answers import Answer


async def run_bulk(
    plan: BulkPlan,
    urls: Iterable[str] | AsyncIterable[str],
    *,
    submit: Callable[[list[Submission]], Awaitable[object]],
    wait: Callable[[str], Awaitable[Answer]],
    cancel_rest: Callable[[Iterable[str]], Awaitable[None]],
) -> AsyncGenerator[BulkOutcome, None]:
    """Yield outcomes as they finish, or in the order of the URLs.

    One task reads URLs and sends messages, and one task per message in flight waits for its answer. The generator only
    yields the finished outcomes, so a slow asynchronous source of URLs does not delay them; a slow plain iterable
    blocks the event loop.
    """
    reorderer = Reorderer(ordered=plan.ordered)
    slots = asyncio.Semaphore(plan.in_flight)
    finished: asyncio.Queue[tuple[BulkMessage, Answer | None] | None] = asyncio.Queue()
    unanswered: dict[int, str] = {}
    retries = RetryPolicy()

    async def follow(message: BulkMessage, job_id: str) -> None:
        while message.is_lost(answer := await wait(job_id)):
            message = plan.again(message)
            await _submit_with_retries(message, submit, retries)
        del unanswered[message.start]
        finished.put_nowait((message, answer))

    async def send_all() -> None:
        async with asyncio.TaskGroup() as followers:
            async for message in _messages(plan, urls):
                await slots.acquire()
                if message.submission is None:
                    finished.put_nowait((message, None))
                    continue
                unanswered[message.start] = message.submission.job_id
                await _submit_with_retries(message, submit, retries)
                followers.create_task(follow(message, message.submission.job_id))

    sending = asyncio.create_task(send_all())
    sending.add_done_callback(lambda _: finished.put_nowait(None))
    try:
        while (item := await finished.get()) is not None:
            message, answer = item
            for outcomes in reorderer.release(message.outcomes(answer)):
                for outcome in outcomes:
                    yield outcome
                slots.release()
        try:
            sending.result()
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await cancel_rest(list(unanswered.values()))


async def _submit_with_retries(
    message: BulkMessage, submit: Callable[[list[Submission]], Awaitable[object]], retries: RetryPolicy
) -> None:
    while message.submission is not None:
        try:
            await submit([message.submission])
        except (QueueFull, BrokerUnavailable) as error:
            retries.refused(error)
            await asyncio.sleep(RETRY_PAUSE_S)
        else:
            retries.sent()
            return


async def _messages(plan: BulkPlan, urls: Iterable[str] | AsyncIterable[str]) -> AsyncIterator[BulkMessage]:
    if not isinstance(urls, AsyncIterable):
        for message in plan.messages(urls):
            yield message
        return
    start = 0
    images: list[str] = []
    async for url in urls:
        images.append(url)
        if len(images) == plan.images_per_message:
            yield plan.message(start, images)
            start += len(images)
            images = []
    if images:
        yield plan.message(start, images)
