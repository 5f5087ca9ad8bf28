"""Answers messages that cannot become jobs, in a thread, since broker or result backend may be away for long."""

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
    """A message that is to be refused.

    Attributes:
        tag: the delivery tag.
        job_id: the id of the job to answer; None if the message holds none.
        task: the name of the task; None if it is not one of ours.
        taken: identifies the message among those with the same id.
        fault: the fault, in a few words without the content.
        acknowledge: called from another thread once the message is answered and stored.
        notify: sends an event to monitors, from that thread, once the answer can be read.
    """

    tag: str
    job_id: str | None
    task: str | None
    taken: Taken
    fault: str
    acknowledge: Callable[[], object]
    notify: Callable[[], object]


class Refusals:
    """Answers refused messages one after another and stores them as dead letters. Each stays in hand until then.

    During that time they take the places of jobs (`worker.jobs.consumer.ImageCredit`), so that there are never many.

    Args:
        answers: stores the answers.
        dead_letters: stores the messages.
        telemetry: counts each message.
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
        """The delivery tags of messages that are not settled yet."""
        with self._lock:
            return set(self._tags)

    def refuse(self, refusal: Refusal) -> None:
        """Queue a message to be answered."""
        with self._lock:
            self._tags.add(refusal.tag)
        self._waiting.put(refusal)

    def _serve(self) -> None:
        while True:
            refusal = self._waiting.get()
            try:
                self._settle(refusal)
                refusal.acknowledge()
            except Exception as error:  # the lease requeues the message once its tag is gone; the thread must go on
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
                logger.error("job %s has no place for its answer (%s): it is malformed", refusal.job_id, error)
        # Stored only after the answer: a message that is requeued before that is refused again, and must not become two
        # dead letters.
        try:
            self._dead_letters.malformed(refusal.tag, job_id=refusal.job_id, task=refusal.task)
        except redis.RedisError as error:  # a key of the dead letters has the wrong type
            logger.error("could not store a malformed message as a dead letter: %s", describe(error))
        self._telemetry.answered("invalid_job")


def _notify(refusal: Refusal) -> None:
    try:
        refusal.notify()
    except Exception as error:  # the broker may be away, and an event is not worth the wait
        logger.debug("could not send an event that job %s failed: %s", refusal.job_id, type(error).__name__)
