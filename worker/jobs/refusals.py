"""Answers messages that cannot become jobs, in a thread, because Redis may be unreachable for a long time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue

import redis

from producer.errors import JobFailed
from worker.delivery.dead_letters import DeadLetters
from worker.delivery.outages import describe
from worker.delivery.taken import Taken
from worker.jobs.results import FirstAnswerBackend, Unanswerable
from worker.observability.metrics import Telemetry
from worker.runtime.logs import place_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message to refuse.

    Attributes:
        tag: the message's delivery tag.
        job_id: the id of the job to answer; None if the message holds none.
        task: the name of the task; None if it is not one of ours.
        taken: distinguishes the message from others with the same id.
        fault: why the message is malformed, without quoting it.
        acknowledge: acknowledges the message; called from another thread once the message is answered and stored.
        notify: sends an event to monitors; called from another thread once the answer is stored.
    """

    tag: str
    job_id: str | None
    task: str | None
    taken: Taken
    fault: str
    acknowledge: Callable[[], object]
    notify: Callable[[], object]


class Refusals:
    """Answers refused messages one after another and stores them as dead letters.

    Each message stays in hand until both are done. The worker takes no more messages while the refused ones in hand are
    as many as its places (`worker.jobs.consumer.ImageCredit`).

    Args:
        answers: stores the answers.
        dead_letters: stores the messages.
        telemetry: counts the messages.
    """

    def __init__(self, answers: FirstAnswerBackend, dead_letters: DeadLetters, telemetry: Telemetry) -> None:
        self._answers = answers
        self._dead_letters = dead_letters
        self._telemetry = telemetry
        self._waiting: SimpleQueue[Refusal] = SimpleQueue()
        self._lock = threading.Lock()
        self._tags: set[str] = set()
        threading.Thread(target=self._serve, name="refusals", daemon=True).start()

    @property
    def tags(self) -> set[str]:
        """The delivery tags of the refused messages that are still in hand."""
        with self._lock:
            return set(self._tags)

    def refuse(self, refusal: Refusal) -> None:
        """Have the thread refuse a message."""
        with self._lock:
            self._tags.add(refusal.tag)
        self._waiting.put(refusal)

    def _serve(self) -> None:
        while True:
            refusal = self._waiting.get()
            try:
                self._settle(refusal)
                refusal.acknowledge()
            except Exception as error:  # this thread must continue; the lease requeues a message without a tag here
                logger.error("could not refuse a message: %s at %s", type(error).__name__, place_of(error))
            finally:
                with self._lock:
                    self._tags.discard(refusal.tag)

    def _settle(self, refusal: Refusal) -> None:
        if refusal.job_id is not None:
            failure = JobFailed("invalid_job", f"the message is malformed: {refusal.fault}.")
            try:
                if self._answers.refuse(refusal.job_id, failure, refusal.taken):
                    _notify(refusal)
            except Unanswerable as error:
                logger.error("job %s is malformed, and its answer cannot be stored (%s)", refusal.job_id, error)
        # The dead letter comes after the answer: if the message is requeued before the answer is stored, a worker
        # refuses it again, and the message must not become two dead letters.
        try:
            self._dead_letters.malformed(refusal.tag, job_id=refusal.job_id, task=refusal.task)
        except redis.RedisError as error:  # a key of the dead letters has the wrong type
            logger.error("could not store a malformed message as a dead letter: %s", describe(error))
        self._telemetry.answered("invalid_job")


def _notify(refusal: Refusal) -> None:
    try:
        refusal.notify()
    except Exception as error:  # an event is not worth the wait for an unreachable broker
        logger.debug("could not send an event that job %s failed: %s", refusal.job_id, type(error).__name__)
