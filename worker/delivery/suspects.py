"""Decides how to run a job that dead workers had in hand: next to other jobs, alone, or not at all.

The script `worker.delivery.scripts.RECLAIM` counts the deaths. One death proves little, since most machines that vanish
do so for other reasons. So a job is a suspect from its second death on, and then each of its stages that can end a
process runs alone; see `worker.engine.stages`. The job is poisoned once ``max_attempts`` workers have died with it in
hand, at least one of them while it ran alone. The same rules apply to each image of a bulk job.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import redis

from producer.contract.names import Queue
from producer.errors import JobFailed
from worker.concurrency.cancel_scope import CancelScope, Suspect
from worker.delivery.names import DeliveryKeys, field_of
from worker.delivery.replies import drop_idle, well_formed
from worker.delivery.taken import Deaths

logger = logging.getLogger(__name__)

#: A job is a suspect from this many deaths on. One death may be due to the machine; two in a row are rarely chance.
SUSPECT_FROM: Final = 2


#: Called for a poisoned job or image with the number of deaths and the image's index in a bulk job, if any.
OnPoisoned = Callable[[int, int | None], None]


class Suspects:
    """Decides how a job runs from the deaths that count against it.

    Args:
        client: a Redis client for the broker's database.
        keys: the key names, including this worker's.
        max_attempts: the number of worker deaths at which a job is poisoned.
    """

    def __init__(self, client: Any, keys: DeliveryKeys, *, max_attempts: int) -> None:
        self._client = client
        self._keys = keys
        self._max_attempts = max_attempts
        #: The number of images of each suspected bulk job, by the job's field.
        self._images: dict[str, int] = {}

    def examine(self, job_id: str, queue: Queue, deaths: Deaths, on_poisoned: OnPoisoned) -> Suspect | None:
        """Return the `Suspect` for a job that runs alone; None for a job that runs next to others.

        Redis keeps the count of deaths until the job's answer is stored and the caller calls `acquit`.

        Raises:
            JobFailed: the job is ``poisoned`` and must not run again.
        """
        if deaths.alone and deaths.count >= self._max_attempts:
            on_poisoned(deaths.count, None)
            raise poisoned(deaths.count)
        if deaths.count < SUSPECT_FROM:
            return None
        logger.warning("job %s was in the hands of %d workers that died: it runs alone", job_id, deaths.count)
        return Suspect(field_of(job_id), queue, deaths.count)

    def images(
        self, scope: CancelScope, suspect: Suspect, deaths: Deaths, on_poisoned: OnPoisoned, count: int
    ) -> Sequence[CancelScope | JobFailed]:
        """Return, for each image of a suspected bulk job, its scope as a suspect, or its failure if it is poisoned.

        A death while an image ran alone counts against that image only. Every other death of the job counts against
        each image that has at least one death of its own.
        """
        job = suspect.mark
        self._images[job] = count
        alone = self._deaths_alone(job, count)
        unexplained = deaths.count - sum(alone)

        def decide(number: int, own: int) -> CancelScope | JobFailed:
            if own and unexplained + own >= self._max_attempts:
                on_poisoned(unexplained + own, number)
                return poisoned(unexplained + own)
            return scope.of(Suspect(f"{job} {number}", suspect.queue, suspect.deaths))

        return [decide(number, own) for number, own in enumerate(alone)]

    def acquit(self, job_id: str) -> None:
        """Delete the counts of a job whose answer is stored, and of its images."""
        job = field_of(job_id)
        images = range(self._images.pop(job, 0))
        fields = [job, f"alone {job}", *(_alone(job, number) for number in images)]
        with _logging_errors("clear the deaths of a suspect"):
            self._client.hdel(self._keys.suspects, *fields)

    def _deaths_alone(self, job: str, count: int) -> list[int]:
        """Return, for each image, how many workers died while it ran alone."""
        fields = [_alone(job, number) for number in range(count)]
        counts = [0] * count
        with _logging_errors("read the deaths of images"), well_formed(partial(drop_idle, self._client)):
            found = self._client.hmget(self._keys.suspects, fields)
            counts = [int(deaths or 0) for _, deaths in zip(fields, found, strict=True)]
        return counts  # noqa: RET504 - an error of Redis leaves the first value


def poisoned(deaths: int) -> JobFailed:
    """Return the failure of a job or image that killed ``deaths`` workers."""
    return JobFailed("poisoned", f"{deaths} workers died while they worked on it; it is not tried again.")


def _alone(job: str, number: int) -> str:
    return f"alone {job} {number}"


@contextmanager
def _logging_errors(what: str) -> Iterator[None]:
    """Log an error of Redis instead of raising it, so that the job continues."""
    try:
        yield
    except redis.RedisError as error:
        logger.warning("could not %s: %s", what, type(error).__name__)
