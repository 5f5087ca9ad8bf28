"""Cancel a job that has no answer yet; forget a job, which frees its id, once it is answered or lost."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Final, Literal

from producer.contract.names import answer_key, cancel_channel, claim_and_place, forget_key, forgotten_key
from producer.errors import JobNotFound, NameshotError
from producer.messages.submission import LONGEST_WAIT_S
from producer.operations.answers import FIRST_ANSWER_WINS, revoked_meta
from producer.operations.exchanges import Call, Operation, Together, not_found, server_time_us
from producer.operations.forgetting import forget_answered, forget_lost
from producer.operations.standing import Standing, examine
from producer.operations.submitting import FROZEN_S
from producer.operations.traces import JobTraces

logger = logging.getLogger(__name__)

#: `forget` gives up after this many attempts if another program changed the job's records during each of them, which
#: does not happen by chance.
MOST_TRIES: Final = 5

#: Frees an id unless it has been submitted again, and adds entries to the list of forgotten jobs. Workers remove the
#: messages of these jobs.
#: KEYS: the claim key, the place key, the list. ARGV: the values of the first two as the caller read them, empty if
#: absent; then the entries.
_FREE: Final = """
if (redis.call('GET', KEYS[1]) or '') == ARGV[1] and (redis.call('GET', KEYS[2]) or '') == ARGV[2] then
  redis.call('DEL', KEYS[1], KEYS[2])
end
for i = 3, #ARGV do redis.call('LPUSH', KEYS[3], ARGV[i]) end
"""


def cancel(prefix: str, job_id: str, *, result_ttl_s: int) -> Operation[bool]:
    """Store a cancellation as the job's answer unless it has one, and notify the workers; return whether it was stored.

    Raises:
        JobNotFound: the job is ``unknown``.
    """
    standing = (yield from examine(prefix, [job_id]))[job_id]
    if standing.answer.is_terminal:
        return False
    if standing.answer.state == "unknown":
        raise not_found(job_id)
    if not (yield from store_end(job_id, "cancelled", standing.traces.life, result_ttl_s)):
        return False
    done = f" Job {job_id} is cancelled, but a worker that runs it may not have been notified."
    yield Call("broker", ("PUBLISH", cancel_channel(prefix), job_id), if_failed=done)
    claim, place = claim_and_place(prefix, job_id)
    yield Together("broker", (("EXPIRE", claim, result_ttl_s), ("EXPIRE", place, result_ttl_s)), if_failed=done)
    return True


def store_end(job_id: str, reason: Literal["cancelled", "expired"], life: str, result_ttl_s: int) -> Operation[bool]:
    """Store that a job was cancelled or has expired, unless it has an answer; return whether this was stored."""
    keys = (answer_key(job_id), forgotten_key(job_id))
    arguments = (revoked_meta(job_id, reason), result_ttl_s, life, "")
    stored = yield Call("results", ("EVAL", FIRST_ANSWER_WINS, len(keys), *keys, *arguments))
    return int(stored) > 0


def cancel_rest(prefix: str, job_ids: Iterable[str], *, result_ttl_s: int) -> Operation[None]:
    """Cancel the messages whose outcomes a stream's caller will not read."""
    for job_id in job_ids:
        try:
            yield from cancel(prefix, job_id, result_ttl_s=result_ttl_s)
        except JobNotFound:  # purged or lost
            continue
        except NameshotError as error:
            # Do not raise: the stream is ending, perhaps because of this very error, and it does no harm if workers
            # run the messages.
            logger.warning("bulk: could not cancel the messages in flight: %s", error)
            return


def forget(prefix: str, job_id: str, *, result_ttl_s: int) -> Operation[bool]:
    """Free the id of a job that is answered or lost; return whether this was done.

    It is not done if there is nothing to free, or if other programs change the job's records during `MOST_TRIES`
    attempts.

    The answer is deleted first, because an id with a claim but neither message nor answer counts as lost and may be
    submitted again. So a program that dies half-way leaves nothing to repair, and the call may be repeated.
    """
    keep_s = LONGEST_WAIT_S + FROZEN_S + result_ttl_s
    for _ in range(MOST_TRIES):
        standing = (yield from examine(prefix, [job_id]))[job_id]
        if standing.answer.is_terminal:
            claim, place = yield Call("broker", ("MGET", *claim_and_place(prefix, job_id)))
            standing = Standing(standing.answer, JobTraces(claim, place))
            if standing.answer.state == "expired":  # perhaps no worker has stored this answer yet
                yield from store_end(job_id, "expired", standing.traces.life, result_ttl_s)
            lives = yield from forget_answered(job_id, standing.traces.life, keep_s=keep_s)
        else:
            if not standing.is_lost or standing.traces.claim is None:
                return False
            since_us = yield from server_time_us("results")
            standing = (yield from examine(prefix, [job_id]))[job_id]
            if not standing.is_lost:
                continue
            lives = yield from forget_lost(job_id, standing.traces.life, since_us, keep_s=keep_s)
        if lives is not None:
            yield from _free(prefix, job_id, standing, lives)
            return True
    return False


def _free(prefix: str, job_id: str, standing: Standing, lives: Sequence[str]) -> Operation[None]:
    left = [f"{job_id} {life}" for life in lives] or [f"{job_id} "]
    keys = (*claim_and_place(prefix, job_id), forget_key(prefix))
    half_done = f" The answer of job {job_id} is deleted; repeat the call to make sure that its id is free."
    yield Call("broker", ("EVAL", _FREE, len(keys), *keys, *standing.traces.as_seen, *left), if_failed=half_done)
