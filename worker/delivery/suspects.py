"""Decides how a job runs that dead workers had in hand: next to others, alone, or not at all, as poison.

The scripts count the deaths; see `worker.delivery.scripts.RECLAIM`. One death proves little: most machines that vanish
do so for other reasons. So a job is a suspect from its second death on, and then each of its stages that can end a
process runs alone, see `worker.engine.stages`. It is poison once ``max_attempts`` workers died with it in hand, at
least one of them while it ran alone. The same holds for each image of a bulk job.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import redis

from producer.contract.names import Queue
from producer.errors import JobFailed
from worker.concurrency.cancel_scope import CancelScope, Suspect
from worker.delivery.names import DeliveryKeys, field_of
from worker.delivery.taken import Deaths

logger = logging.getLogger(__name__)

#: A job runs alone from this many deaths on. One death may be due to the machine; two in a row are rarely chance.
SUSPECT_FROM: Final = 2


#: Called for a job or image that does not run again, with the number of deaths and the image's index in a bulk job.
OnPoisoned = Callable[[int, int | None], None]


class Suspects:
    """Decides how a job runs from the deaths that count against it.

    Args:
        client: a Redis client for the broker's database.
        keys: the key names, including this worker's.
        max_attempts: worker crashes that one job may cause before it is poison.
    """

    def __init__(self, client: Any, keys: DeliveryKeys, *, max_attempts: int) -> None:
        self._client = client
        self._keys = keys
        self._max_attempts = max_attempts
        #: The number of images of each suspected bulk job, by the job's field.
        self._images: dict[str, int] = {}

    def examine(self, job_id: str, queue: Queue, deaths: Deaths, on_poisoned: OnPoisoned) -> Suspect | None:
        """Return the suspect as which a job runs alone; None if it runs next to others.

        Its deaths stay counted until `acquit` is called, once its answer is stored.

        Raises:
            JobFailed: ``poisoned``; the job does not run again.
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
        """Return, for each image of a suspected bulk job, its scope as a suspect, or its failure if poisoned.

        The deaths while an image ran alone count against that image; the deaths that no image caused alone count
        against each image that has deaths of its own.
        """
        job = suspect.mark
        self._images[job] = count
        alone = self._deaths_alone(job, count)
        unexplained = deaths.count - sum(alone)

        def found(number: int, own: int) -> CancelScope | JobFailed:
            if own and unexplained + own >= self._max_attempts:
                on_poisoned(unexplained + own, number)
                return poisoned(unexplained + own)
            return scope.of(Suspect(f"{job} {number}", suspect.queue, suspect.deaths))

        return [found(number, own) for number, own in enumerate(alone)]

    def acquit(self, job_id: str) -> None:
        """Delete the counts of a job whose answer is stored, and of its images."""
        job = field_of(job_id)
        images = range(self._images.pop(job, 0))
        fields = [job, f"alone {job}", *(_alone(job, number) for number in images)]
        with _unless_away("clear a suspect"):
            self._client.hdel(self._keys.suspects, *fields)

    def _deaths_alone(self, job: str, count: int) -> list[int]:
        """Return how many workers died while each image ran alone."""
        found: list[bytes | None] = []
        with _unless_away("look up the deaths of images"):
            found = self._client.hmget(self._keys.suspects, [_alone(job, number) for number in range(count)])
        return [int(deaths or 0) for deaths in found] or [0] * count


def poisoned(deaths: int) -> JobFailed:
    """Return the failure of a job or image that killed ``deaths`` workers."""
    return JobFailed("poisoned", f"{deaths} workers died while they worked on it; it is not tried again.")


def _alone(job: str, number: int) -> str:
    return f"alone {job} {number}"


@contextmanager
def _unless_away(what: str) -> Iterator[None]:
    """Log an error of Redis and let the job go on; its counts then last a little longer."""
    try:
        yield
    except redis.RedisError as error:
        logger.warning("could not %s: %s", what, type(error).__name__)
