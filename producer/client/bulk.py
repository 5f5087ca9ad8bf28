"""Streams of images: many to a message, a bounded number of messages under way, outcomes as they finish."""

from __future__ import annotations

import logging
import queue as queues
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from typing import Final

from producer.client.portions import BulkMessage, BulkOutcome, BulkPlan
from producer.errors import BrokerUnavailable, JobNotFound, NameshotError, QueueFull
from producer.messages.submission import Submission
from producer.operations.answers import Answer

logger = logging.getLogger(__name__)

#: Between two tries of sending a message that a full queue or an absent Redis refused.
RETRY_PAUSE_S: Final = 1.0
#: As long as those who wait for an answer are patient; a full queue is waited for without end.
OUTAGE_S: Final = 60.0


class RetryPolicy:
    """Says whether a message that could not be sent should be tried again."""

    def __init__(self) -> None:
        self._since_s: float | None = None
        self._was_there = False

    def sent(self) -> None:
        """Forget earlier failures."""
        self._since_s = None
        self._was_there = True

    def refused(self, error: QueueFull | BrokerUnavailable) -> None:
        """Return when it should be tried again; raise ``error`` once Redis was away too long.

        A Redis that was never there is not waited for: more likely its address is wrong.
        """
        if isinstance(error, QueueFull):
            self._since_s = None
            self._was_there = True
            return
        if not self._was_there:
            raise error
        if self._since_s is None:
            self._since_s = time.monotonic()
        if time.monotonic() - self._since_s > OUTAGE_S:
            raise error


class Reorderer:
    """Holds finished portions back until those before them are finished, where order is asked for."""

    def __init__(self, *, ordered: bool) -> None:
        self._ordered = ordered
        self._next = 0
        self._held: dict[int, list[BulkOutcome]] = {}

    def release(self, outcomes: list[BulkOutcome]) -> Iterator[list[BulkOutcome]]:
        """The portions that may be yielded now that this one is finished."""
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
    cancel: Callable[[str], bool],
) -> Generator[BulkOutcome, None, None]:
    """The stream of `Client.classify_many`."""
    portions = plan.portions(urls)
    order, patience = Reorderer(ordered=plan.ordered), RetryPolicy()
    finished: queues.SimpleQueue[tuple[BulkMessage, Future[Answer] | None]] = queues.SimpleQueue()
    under_way: dict[int, Future[Answer] | None] = {}
    ids: dict[int, str] = {}
    #: Refused for now, or to be sent again.
    unsent: list[BulkMessage] = []
    is_refused = exhausted = False
    try:
        while True:
            is_refused = False
            while len(under_way) < plan.in_flight and (unsent or not exhausted) and finished.empty():
                portion = unsent.pop() if unsent else next(portions, None)
                if portion is None:
                    exhausted = True
                    break
                waiting = None
                if portion.submission is not None:
                    try:
                        submit([portion.submission])
                    except (QueueFull, BrokerUnavailable) as error:
                        patience.refused(error)
                        unsent.append(portion)
                        is_refused = True
                        break
                    patience.sent()
                    ids[portion.start] = portion.submission.job_id
                    waiting = wait(portion.submission.job_id)
                under_way[portion.start] = waiting
                _announce(portion, waiting, finished)
            if not under_way and exhausted and not unsent:
                return
            try:
                portion, waiting = finished.get(timeout=RETRY_PAUSE_S if is_refused else None)
            except queues.Empty:
                continue
            answer = _answer_of(waiting)
            ids.pop(portion.start, None)
            if portion.is_lost(answer):
                del under_way[portion.start]
                unsent.append(plan.again(portion))
                continue
            for outcomes in order.release(portion.outcomes(answer)):
                yield from outcomes
                del under_way[outcomes[0].index]
    finally:
        for left in under_way.values():
            if left is not None:
                left.cancel()
        cancel_rest(ids.values(), cancel)


def cancel_rest(job_ids: Iterable[str], cancel: Callable[[str], bool]) -> None:
    """Cancel messages whose outcomes nobody will read."""
    for job_id in job_ids:
        try:
            cancel(job_id)
        except JobNotFound:  # purged or lost
            continue
        except NameshotError as error:
            # The reader is leaving, maybe because of this very error; the messages run to no harm.
            logger.warning("bulk: could not cancel the messages under way: %s", error)
            return


def _announce(
    portion: BulkMessage,
    waiting: Future[Answer] | None,
    finished: queues.SimpleQueue[tuple[BulkMessage, Future[Answer] | None]],
) -> None:
    if waiting is None:
        finished.put((portion, None))
    else:
        waiting.add_done_callback(lambda _: finished.put((portion, waiting)))


def _answer_of(waiting: Future[Answer] | None) -> Answer | None:
    return None if waiting is None else waiting.result()
