"""Shortens the claim on a job's id so that it expires together with the job's answer.

Our client claims a job's id in the broker's database for as long as the job may wait plus the TTL of its answer. Once
the answer is stored, a thread shortens the claim to the answer's TTL. The thread shortens many claims in one pipeline,
and no job waits for it.
"""

from __future__ import annotations

import logging
import threading
from functools import partial
from queue import SimpleQueue
from typing import Any, Final

import redis

from producer.broker.scripting import eval_all
from producer.contract.names import claim_and_place
from producer.messages.submission import CLAIMED_ID
from producer.operations.traces import Location, is_stray
from worker.delivery.outages import describe, is_wrong_type
from worker.delivery.replies import drop_idle, well_formed

logger = logging.getLogger(__name__)

#: KEYS: the claim key and the place key. ARGV: the TTL of an answer in seconds, and the life of the answered message
#: (its delivery tag). The script may run again long after the answer was stored, so it never prolongs a claim. By then
#: a client may have freed the id and submitted another job under it, so the script leaves a claim alone if the place
#: key has the life of another message.
_SHORTEN: Final = """
local place = redis.pcall('GET', KEYS[2])
if type(place) == 'string' and string.match(place, ' (%S+)$') ~= ARGV[2] then return end
for i = 1, 2 do
  if redis.call('TTL', KEYS[i]) > tonumber(ARGV[1]) then redis.call('EXPIRE', KEYS[i], ARGV[1]) end
end
"""
#: One pipeline holds at most this many commands, so that a burst of answers does not become one huge request.
MAX_PIPELINE: Final = 500


class ClaimKeeper:
    """Shortens the claims of answered jobs.

    Args:
        client: a Redis client for the broker's database.
        prefix: the queue prefix.
        ttl_s: the TTL of an answer in seconds.
    """

    def __init__(self, client: Any, *, prefix: str, ttl_s: int) -> None:
        self._client = client
        self._prefix = prefix
        self._ttl_s = ttl_s
        self._answered: SimpleQueue[tuple[str, str]] = SimpleQueue()
        threading.Thread(target=self._serve, name="claims", daemon=True).start()

    def answered(self, job_id: str, life: str) -> None:
        """Have the thread shorten the claim of an answered job.

        Args:
            life: the delivery tag with which the client sent the job's message.
        """
        if CLAIMED_ID.fullmatch(job_id):  # for the id ``x:place``, the claim's key would be the place key of ``x``
            self._answered.put((job_id, life))

    def is_for_another(self, job_id: str, life: str) -> bool:
        """Return whether an id is claimed for another message, one with a different ``life`` (delivery tag).

        Raises:
            RedisError: the place key could not be read.
        """
        if not CLAIMED_ID.fullmatch(job_id):
            return False
        claim, place = claim_and_place(self._prefix, job_id)
        with well_formed(partial(drop_idle, self._client)):
            with self._client.pipeline() as pipe:
                value, claim_ms, place_ms = pipe.get(place).pttl(claim).pttl(place).execute(raise_on_error=False)
            if isinstance(value, redis.RedisError):
                if is_wrong_type(value):
                    return False
                # The result backend retries a ConnectionError; it would take any other error for its own failure to
                # store the answer.
                raise redis.ConnectionError(f"the broker: {describe(value)}") from value
            found = Location.read(value)
            return found is not None and not is_stray(claim_ms, place_ms) and found.life != life

    def _serve(self) -> None:
        while True:
            answered = [self._answered.get()]
            while not self._answered.empty() and len(answered) < MAX_PIPELINE:
                answered.append(self._answered.get())
            try:
                eval_all(
                    self._client,
                    _SHORTEN,
                    [(2, *claim_and_place(self._prefix, job_id), self._ttl_s, life) for job_id, life in answered],
                )
            except Exception as error:  # this thread must continue; a claim that is not shortened does no harm
                logger.warning("could not shorten %d job claims: %s", len(answered), type(error).__name__)
