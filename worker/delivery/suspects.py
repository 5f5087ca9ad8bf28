"""Jobs that were in the hands of workers that died: they run beside others, or alone, or are found to be poison.

The scripts count the deaths; see `worker.delivery.scripts.RECLAIM`. One death says little: most machines that vanish do
so for reasons of their own. So a job is a suspect from the second on, and then each of its stages that can end a
process runs alone, see `worker.engine.stages`. It is poison when ``max_attempts`` workers died with it in hand, one of
them while nothing but it ran; the image of a bulk job likewise, by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import redis

from producer.contract import Queue
from producer.errors import JobFailed
from worker.concurrency.cancel_scope import Suspect
from worker.delivery.names import DeliveryKeys, field_of

logger = logging.getLogger(__name__)

#: Deaths from which on a job runs alone. The first may have been the machine's end; two in a row are rarely chance.
SUSPECT_FROM: Final = 2


@dataclass(frozen=True, slots=True)
class Deaths:
    """How many workers died with a job in hand.

    Attributes:
        alone: how many of them ran nothing else that could end a process.
    """

    count: int = 0
    alone: int = 0


#: Told of what is not run again: how many workers died, and the number of the image where it is one of many.
OnPoisoned = Callable[[int, int | None], None]


class Suspects:
    """Decides how a job runs, after what happened to it before.

    Args:
        client: a redis client on the broker's database.
        keys: names, this worker's among them.
        max_attempts: unclean deaths that one job may be to blame for.
    """

    def __init__(self, client: Any, keys: DeliveryKeys, *, max_attempts: int) -> None:
        self._client = client
        self._keys = keys
        self._max_attempts = max_attempts
        #: Of each suspected bulk job, by its field: how many images it has.
        self._images: dict[str, int] = {}

    def examine(self, job_id: str, queue: Queue, deaths: Deaths, on_poisoned: OnPoisoned) -> Suspect | None:
        """What a job is worked on as: None for one that runs beside others.

        Its deaths stay counted until `acquit` is called, once its answer stands.

        Raises:
            JobFailed: ``poisoned``; it is not run again.
        """
        if deaths.alone and deaths.count >= self._max_attempts:
            on_poisoned(deaths.count, None)
            raise poisoned(deaths.count)
        if deaths.count < SUSPECT_FROM:
            return None
        logger.warning("job %s was in the hands of %d workers that died: it runs alone", job_id, deaths.count)
        return Suspect(field_of(job_id), queue)

    def images(
        self, suspect: Suspect, deaths: Deaths, count: int, on_poisoned: OnPoisoned
    ) -> Sequence[Suspect | JobFailed]:
        """What each image of a suspected bulk job is worked on as; the failure of one that is not.

        An image is to blame for what ended workers while it ran alone, and maybe for the deaths before that blamed no
        image.
        """
        job = suspect.mark
        self._images[job] = count
        alone = self._deaths_alone(job, count)
        unexplained = deaths.count - sum(alone)

        def found(number: int, own: int) -> Suspect | JobFailed:
            if own and unexplained + own >= self._max_attempts:
                on_poisoned(unexplained + own, number)
                return poisoned(unexplained + own)
            return Suspect(f"{job} {number}", suspect.queue)

        return [found(number, own) for number, own in enumerate(alone)]

    def acquit(self, job_id: str) -> None:
        """Lift the suspicion of a job whose answer stands, and of its images."""
        job = field_of(job_id)
        images = range(self._images.pop(job, 0))
        fields = [job, f"alone {job}", *(_alone(job, number) for number in images)]
        with _unless_away("clear a suspect"):
            self._client.hdel(self._keys.suspects, *fields)

    def _deaths_alone(self, job: str, count: int) -> list[int]:
        """Of each image: how many workers died while nothing but it ran."""
        found: list[bytes | None] = []
        with _unless_away("look up the past of images"):
            found = self._client.hmget(self._keys.suspects, [_alone(job, number) for number in range(count)])
        return [int(deaths or 0) for deaths in found] or [0] * count


def poisoned(deaths: int) -> JobFailed:
    """The failure of what killed ``deaths`` workers."""
    return JobFailed("poisoned", f"{deaths} workers died while they worked on it; it is not tried again.")


def _alone(job: str, number: int) -> str:
    return f"alone {job} {number}"


@contextmanager
def _unless_away(what: str) -> Iterator[None]:
    """Without Redis the job goes on: its suspicion then lasts a little longer."""
    try:
        yield
    except redis.RedisError as error:
        logger.warning("could not %s: %s", what, type(error).__name__)
