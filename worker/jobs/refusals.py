"""Answers messages that cannot become jobs, off the event loop: either Redis may be away for long."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol

import redis

from producer.errors import JobFailed
from worker.delivery.outages import Outage
from worker.jobs.results import Message, Unanswerable
from worker.runtime.logs import place_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message that is to be refused.

    Attributes:
        tag: of its delivery.
        job_id: None where it does not say whose answer this is.
        task: None where it is none of ours.
        message: which message of that id it is.
        fault: what is wrong with it, in a few words without its content.
        acknowledge: called from another thread once it is kept, and answered.
        tell: tells those who watch events, from that thread, once its answer can be read.
    """

    tag: str
    job_id: str | None
    task: str | None
    message: Message
    fault: str
    acknowledge: Callable[[], object]
    tell: Callable[[], object]


class Keep(Protocol):
    """Keeps a message as a dead letter; raises `RedisError`."""

    def __call__(self, tag: str, *, job_id: str | None, task: str | None) -> None:
        """The delivery tag, and what the record says."""
        ...


class Refusals:
    """Keeps and answers refused messages one after another. Each stays in hand until that is done.

    They take the places of jobs meanwhile (`worker.jobs.consumer.ImageCredit`), so that there are never many.

    Args:
        keep: keeps one as a dead letter.
        answer: stores an answer, and waits for as long as that takes; False where another stands, or the job was
            forgotten; raises `Unanswerable`.
        on_settled: told of each.
    """

    def __init__(
        self, *, keep: Keep, answer: Callable[[str, JobFailed, Message], bool], on_settled: Callable[[], None]
    ) -> None:
        self._keep = keep
        self._answer = answer
        self._on_settled = on_settled
        self._broker = Outage("the broker", "does not take dead letters")
        self._waiting: SimpleQueue[Refusal] = SimpleQueue()
        self._lock = threading.Lock()
        self._tags: set[str] = set()
        threading.Thread(target=self._serve, name="refusals", daemon=True).start()

    @property
    def tags(self) -> set[str]:
        """Delivery tags of the messages that are not answered yet."""
        with self._lock:
            return set(self._tags)

    def __len__(self) -> int:
        return len(self._tags)

    def refuse(self, refusal: Refusal) -> None:
        """Answer a message soon."""
        with self._lock:
            self._tags.add(refusal.tag)
        self._waiting.put(refusal)

    def _serve(self) -> None:
        while True:
            refusal = self._waiting.get()
            try:
                self._settle(refusal)
                refusal.acknowledge()
            except Exception as error:  # the message is given back once its tag is gone; the thread must go on
                logger.error("could not refuse a message: %s at %s", type(error).__name__, place_of(error))
            finally:
                with self._lock:
                    self._tags.discard(refusal.tag)

    def _settle(self, refusal: Refusal) -> None:
        if refusal.job_id is not None:
            failure = JobFailed("invalid_job", f"the message is malformed: {refusal.fault}.")
            try:
                if self._answer(refusal.job_id, failure, refusal.message):
                    _tell(refusal)
            except Unanswerable as error:
                logger.error("job %s has no place for its answer (%s), that it is malformed", refusal.job_id, error)
        # Only now: a message that goes back to its queue meanwhile is refused again, and shall not have two letters.
        try:
            self._broker.outlast(lambda: self._keep(refusal.tag, job_id=refusal.job_id, task=refusal.task))
        except redis.RedisError as error:  # the letters' own keys hold something else
            logger.error("could not keep a malformed message as a dead letter: %s", error)
        self._on_settled()


def _tell(refusal: Refusal) -> None:
    try:
        refusal.tell()
    except Exception as error:  # the broker is away, for one, and an event is not worth waiting for it
        logger.debug("could not tell that job %s failed: %s", refusal.job_id, type(error).__name__)
