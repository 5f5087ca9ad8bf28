"""Jobs that were in the hands of a worker that died: run alone, cleared, or found to be poison.

The scripts count the deaths; see `worker.delivery.scripts.RECLAIM`. A job is poison when at least one worker died with
nothing but it running, and ``max_attempts`` died with it in hand; the image of a bulk job likewise, by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import redis

from producer.errors import JobFailed
from worker.cancel_scope import CancelScope
from worker.delivery.isolation import Isolation
from worker.delivery.names import DeliveryKeys

logger = logging.getLogger(__name__)

#: Longer than any job runs: a mark that its writer could not take away must not blame a job for ever.
MARK_S: Final = 3_600


@dataclass(frozen=True, slots=True)
class Deaths:
    """How many workers died with a job in hand.

    Attributes:
        alone: how many of them ran nothing else.
    """

    count: int = 0
    alone: int = 0


#: Told of what is not run again: how many workers died, and the number of the image where it is one of many.
OnPoisoned = Callable[[int, int | None], None]
#: Runs one image of a suspected bulk job, by its number; raises `JobFailed` for one that was found to be poison.
Escort = Callable[[int], AbstractContextManager[None]]


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
        self._isolation = Isolation()
        #: Of each suspected bulk job: how many of its images have run.
        self._images: dict[str, int] = {}

    @contextmanager
    def guard(
        self, job_id: str, deaths: Deaths, on_poisoned: OnPoisoned, scope: CancelScope
    ) -> Iterator[Escort | None]:
        """Run a job: beside others, or alone when it is suspected; then an escort for its images is given.

        Its suspicion stays until somebody calls `acquit`, once its answer stands.

        Args:
            scope: ends the wait for its turn.

        Raises:
            JobFailed: ``poisoned``; it is not run again.
            Cancelled: somebody has cancelled the scope before its turn came.
        """
        if not deaths.count:
            with self._isolation.together(scope):
                yield None
            return
        if deaths.alone and deaths.count >= self._max_attempts:
            on_poisoned(deaths.count, None)
            raise poisoned(deaths.count)
        with self._isolation.alone(scope):
            logger.warning("job %s was in the hands of %d workers that died: it runs alone", job_id, deaths.count)
            self._mark(job_id)

            @contextmanager
            def escort(number: int) -> Iterator[None]:
                self._images[job_id] = max(self._images.get(job_id, 0), number + 1)
                if (died := self._deaths_of_image(job_id, number)) >= max(1, self._max_attempts - 1):
                    on_poisoned(died + 1, number)
                    raise poisoned(died + 1)
                self._mark(f"{job_id} {number}")
                try:
                    yield
                finally:
                    self._mark(job_id)

            try:
                yield escort
            finally:  # it failed or it did not: it killed nobody
                self._unmark()

    def acquit(self, job_id: str) -> None:
        """Lift the suspicion of a job whose answer stands, and of its images."""
        images = range(self._images.pop(job_id, 0))
        fields = [job_id, f"alone {job_id}", *(f"alone {job_id} {number}" for number in images)]
        with _unless_away("clear a suspect"):
            self._client.hdel(self._keys.suspects, *fields)

    def _mark(self, what: str) -> None:
        with _unless_away("mark what runs alone"):
            self._client.set(self._keys.alone, what, ex=MARK_S)

    def _unmark(self) -> None:
        with _unless_away("unmark what ran alone"):
            self._client.delete(self._keys.alone)

    def _deaths_of_image(self, job_id: str, number: int) -> int:
        deaths: bytes | None = None
        with _unless_away("look up an image's past"):
            deaths = self._client.hget(self._keys.suspects, f"alone {job_id} {number}")
        return int(deaths or 0)


def poisoned(deaths: int) -> JobFailed:
    """The failure of what killed ``deaths`` workers."""
    return JobFailed("poisoned", f"{deaths} workers died while they worked on it; it is not tried again.")


@contextmanager
def _unless_away(what: str) -> Iterator[None]:
    """Without Redis the job goes on: its suspicion then lasts a little longer."""
    try:
        yield
    except redis.RedisError as error:
        logger.warning("could not %s: %s", what, type(error).__name__)
