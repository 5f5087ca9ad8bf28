"""The stream of `Client.classify_many`: it keeps a bounded number of messages in flight, and yields their outcomes."""

from __future__ import annotations

import queue as queues
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, Final

from producer.client.portions import BulkMessage, BulkOutcome, BulkPlan
from producer.errors import BrokerUnavailable, QueueFull
from producer.messages.submission import Submission
from producer.operations.answers import Answer

#: The pause between two attempts to send a message while the queue is full or Redis is down.
RETRY_PAUSE_S: Final = 1.0
#: The longest outage of Redis that the stream tolerates; a wait for an answer tolerates the same. While the queue is
#: full, the client retries indefinitely.
OUTAGE_S: Final = 60.0


class RetryPolicy:
    """Decides whether to retry a message that could not be sent."""

    def __init__(self) -> None:
        self._since_s: float | None = None
        self._has_replied = False

    def sent(self) -> None:
        """Record a success, which ends an outage."""
        self._since_s = None
        self._has_replied = True

    def refused(self, error: QueueFull | BrokerUnavailable) -> None:
        """Return if the message should be retried; raise ``error`` once Redis has been down for `OUTAGE_S`.

        If Redis has never replied, raise ``error`` at once: the address of Redis is probably wrong.
        """
        if isinstance(error, QueueFull):
            self._since_s = None
            self._has_replied = True
            return
        if not self._has_replied:
            raise error
        if self._since_s is None:
            self._since_s = time.monotonic()
        if time.monotonic() - self._since_s > OUTAGE_S:
            raise error


class Reorderer:
    """Holds finished messages of an ordered stream back until those before them are finished."""

    def __init__(self, *, ordered: bool) -> None:
        self._ordered = ordered
        self._next = 0
        self._held: dict[int, list[BulkOutcome]] = {}

    def release(self, outcomes: list[BulkOutcome]) -> Iterator[list[BulkOutcome]]:
        """Yield the outcomes of each message that may be released now that this one is finished."""
        if not self._ordered:
            yield outcomes
            return
        self._held[outcomes[0].index] = outcomes
        while (ready := self._held.pop(self._next, None)) is not None:
            self._next += len(ready)
            yield ready


def run_bulk(
    plan: BulkPlan,
    urls: Iterable[str],
    *,
    submit: Callable[[list[Submission]], object],
    wait: Callable[[str], Future[Answer]],
    cancel_rest: Callable[[Iterable[str]], None],
) -> Generator[BulkOutcome, None, None]:
    """Send messages, wait for their answers and yield the outcomes, for `Client.classify_many`."""
    messages = plan.messages(urls)
    reorderer, retries = Reorderer(ordered=plan.ordered), RetryPolicy()
    #: Futures that are done; each holds a message's answer, or None if no image of the message was sent.
    finished: queues.SimpleQueue[Future[Any]] = queues.SimpleQueue()
    under_way: dict[Future[Any], BulkMessage] = {}
    ids: dict[int, str] = {}
    #: The number of messages whose outcomes have not been yielded yet.
    in_flight = 0
    #: Messages that Redis refused for now, or that were lost and must be sent again.
    unsent: list[BulkMessage] = []
    is_refused = exhausted = False
    try:
        while True:
            is_refused = False
            while in_flight < plan.in_flight and (unsent or not exhausted) and finished.empty():
                message = unsent.pop() if unsent else next(messages, None)
                if message is None:
                    exhausted = True
                    break
                waiting: Future[Any] = Future()
                if message.submission is None:
                    waiting.set_result(None)
                else:
                    try:
                        submit([message.submission])
                    except (QueueFull, BrokerUnavailable) as error:
                        retries.refused(error)
                        unsent.append(message)
                        is_refused = True
                        break
                    retries.sent()
                    ids[message.start] = message.submission.job_id
                    waiting = wait(message.submission.job_id)
                in_flight += 1
                under_way[waiting] = message
                waiting.add_done_callback(finished.put)
            if not in_flight and exhausted and not unsent:
                return
            try:
                waiting = finished.get(timeout=RETRY_PAUSE_S if is_refused else None)
            except queues.Empty:
                continue
            message = under_way.pop(waiting)
            answer = waiting.result()
            ids.pop(message.start, None)
            if message.is_lost(answer):
                in_flight -= 1
                unsent.append(plan.again(message))
                continue
            for outcomes in reorderer.release(message.outcomes(answer)):
                yield from outcomes
                in_flight -= 1
    finally:
        for left in under_way:
            left.cancel()
        cancel_rest(ids.values())
