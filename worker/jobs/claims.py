"""Lets a job's id go when its answer goes.

A producer that submits under an id of its own claims it in the broker's database, for as long as the job may wait
plus the life of its answer. Once the answer is written, this shortens the claim to the answer's own life, so that
both end together. Off the job's path: a thread sends what has gathered as one pipeline.
"""

from __future__ import annotations

import logging
import threading
from queue import SimpleQueue
from typing import Any, Final

import redis

from producer.contract import claim_key, place_key
from producer.messages.submission import CLAIMED_ID
from producer.operations.whereabouts import SAME_TTL_MS, Place
from worker.delivery.outages import is_outage

logger = logging.getLogger(__name__)

#: KEYS: the claim, the place beside it. ARGV: their longest life from now, seconds; the life of the message that is
#: answered. An answer may be noted again later in its life. By now the id may have been freed and sent again: a claim
#: whose place is of another message stays as it is.
_SHORTEN: Final = """
local place = redis.pcall('GET', KEYS[2])
if type(place) == 'string' and string.match(place, ' (%S+)$') ~= ARGV[2] then return end
for i = 1, 2 do
  if redis.call('TTL', KEYS[i]) > tonumber(ARGV[1]) then redis.call('EXPIRE', KEYS[i], ARGV[1]) end
end
"""
#: Commands in one pipeline; keeps a burst of answers from becoming one huge request.
MAX_PIPELINE: Final = 500


class ClaimKeeper:
    """Shortens the claims of answered jobs.

    Args:
        client: a redis client on the broker's database.
        prefix: the queue prefix.
        ttl_s: the life of an answer, seconds.
    """

    def __init__(self, client: Any, *, prefix: str, ttl_s: int) -> None:
        self._client = client
        self._prefix = prefix
        self._ttl_s = ttl_s
        self._answered: SimpleQueue[tuple[str, str] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="claims", daemon=True)
        self._thread.start()

    def answered(self, job_id: str, life: str) -> None:
        """Note that a job's answer stands.

        Args:
            life: of its message, see `worker.delivery.names.LIFE_HEADER`.
        """
        if CLAIMED_ID.fullmatch(job_id):  # or the claim of ``x:place`` is what stands beside that of ``x``
            self._answered.put((job_id, life))

    def is_for_another(self, job_id: str, life: str) -> bool:
        """Whether an id is claimed, and for another message than the one of that life; raises `RedisError`."""
        if not CLAIMED_ID.fullmatch(job_id):
            return False
        claim, place = claim_key(self._prefix, job_id), place_key(self._prefix, job_id)
        with self._client.pipeline() as pipe:
            value, claim_ms, place_ms = pipe.get(place).pttl(claim).pttl(place).execute(raise_on_error=False)
        if isinstance(value, redis.RedisError):
            if is_outage(value):
                raise value
            return False
        found = Place.read(value)
        is_stray = abs(claim_ms - place_ms) > SAME_TTL_MS
        return found is not None and not is_stray and found.life != life

    def close(self, timeout_s: float = 2.0) -> None:
        """Send what has gathered, then end the thread."""
        self._answered.put(None)
        self._thread.join(timeout_s)

    def _serve(self) -> None:
        closing = False
        while not closing:
            answered = [self._answered.get()]
            while not self._answered.empty() and len(answered) < MAX_PIPELINE:
                answered.append(self._answered.get())
            closing = None in answered
            try:
                with self._client.pipeline(transaction=False) as pipe:
                    for job_id, life in filter(None, answered):
                        keys = (claim_key(self._prefix, job_id), place_key(self._prefix, job_id))
                        pipe.eval(_SHORTEN, 2, *keys, self._ttl_s, life)
                    pipe.execute()
            except Exception as error:  # a claim that lives longer harms nobody; the thread must go on
                logger.warning("could not shorten %d job claims: %s", len(answered), type(error).__name__)
