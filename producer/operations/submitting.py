"""Submit jobs: claim each new id and queue its message in one script; queue a lost job again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from producer.contract.names import Queue, claim_and_place, queue_name, rung_name, step_names, taken_name
from producer.errors import JobConflict, QueueFull
from producer.messages.submission import Submission
from producer.operations.dating import DATED
from producer.operations.exchanges import RETRY_AFTER_S, Call, Operation, queue_full, server_time_us
from producer.operations.forgetting import forget_lost
from producer.operations.standing import Standing, examine

#: How long a frozen worker may hold a lost message after the message's claim has expired.
FROZEN_S: Final = 86_400

#: Lua functions that read and extend a queue with given `queue_keys`: its list, its rung list, its counter and its 18
#: priority lists. ``open`` reads all these keys before the first write, so that the script fails before it claims
#: anything if a key has a wrong type. Messages in priority lists count towards the queue's limit, but they have no
#: numbers, because workers take them after the queue's own list.
#: ``push`` claims an id and queues its message, which expires at the second ``expires_s``, or never if that is ''. If
#: Redis refuses the message, ``push`` frees the id again and returns the error.
OPEN_QUEUE: Final = """
local function open(first)
  local queue = {list = KEYS[first], taken = tonumber(redis.call('GET', KEYS[first + 2]) or 0) or 0, steps = 0}
  queue.ahead = redis.call('LLEN', queue.list) + redis.call('LLEN', KEYS[first + 1])
  if redis.call('EXISTS', unpack(KEYS, first + 3, first + 20)) > 0 then
    for i = first + 3, first + 20 do
      queue.steps = queue.steps + (tonumber(redis.pcall('LLEN', KEYS[i])) or 0)
    end
  end
  return queue
end
local function push(queue, name, claim, place, fingerprint, seconds, life, message, expires_s)
  local number = string.format('%d', queue.taken + queue.ahead + 1)
  redis.call('SET', claim, fingerprint, 'EX', seconds)
  if expires_s ~= '' then number = number .. ' ' .. expires_s end
  redis.call('SET', place, name .. ' ' .. number .. ' ' .. life, 'EX', seconds)
  local pushed = redis.pcall('LPUSH', queue.list, message)
  if type(pushed) == 'table' and pushed.err then
    redis.call('DEL', claim, place)
    return redis.error_reply(pushed.err)
  end
  queue.ahead = queue.ahead + 1
end
"""

#: Queues jobs in order until it refuses one, and never claims an id without queueing its message.
#: KEYS: the keys of each queue, then the claim key and the place key of each job. ARGV: the maximum of waiting
#: messages; the number of queues; 'stop' to stop at the first claimed id, so that the caller can examine it; the short
#: name of each queue; then for each job the number of its queue, its fingerprint, its claim's TTL in seconds, the life
#: of its message, and the arguments of ``dated`` for the message.
#: Returns how many jobs are queued now or existed already, why it stopped ('queued' after the last job), and for each
#: job 1 if this message is queued, or 0 if the id belongs to another message.
_SUBMIT: Final = (
    OPEN_QUEUE
    + DATED
    + """
local most, count = tonumber(ARGV[1]), tonumber(ARGV[2])
local queues, is_new = {}, {}
local jobs = (#KEYS - 21 * count) / 2
for i = 1, jobs do
  local claim, place = KEYS[21 * count + 2 * i - 1], KEYS[21 * count + 2 * i]
  local of, fingerprint, seconds, life = unpack(ARGV, 7 * i + count - 3, 7 * i + count)
  of = tonumber(of)
  local existing = redis.call('GET', claim)
  if existing then
    -- If the place key has this message's life, an earlier attempt of this call queued it, and its reply was lost.
    local is_own = string.match(redis.call('GET', place) or '', '^%S+ %d+ .-(%S+)$') == life
    if not is_own and (ARGV[3] == 'stop' or existing ~= fingerprint) then
      return {i - 1, ARGV[3] == 'stop' and 'claimed' or 'conflict', is_new}
    end
    is_new[i] = is_own and 1 or 0
  else
    queues[of] = queues[of] or open(21 * of - 20)
    if queues[of].ahead + queues[of].steps >= most then return {i - 1, 'full', is_new} end
    local message, expires_s = dated(unpack(ARGV, 7 * i + count + 1, 7 * i + count + 3))
    local refused = push(queues[of], ARGV[3 + of], claim, place, fingerprint, seconds, life, message, expires_s)
    if refused then return refused end
    is_new[i] = 1
  end
end
return {jobs, 'queued', is_new}
"""
)

#: Queues a lost job again, unless another client has since freed its id or queued a message for it.
#: KEYS: the keys of the queue, the claim key, the place key. ARGV: the maximum of waiting messages; the values of these
#: two keys as the caller read them, empty if absent; the queue's short name, the fingerprint, the claim's TTL in
#: seconds, the message's life, and the arguments of ``dated``. Returns 'queued', 'changed' or 'full'.
_SUBMIT_ANEW: Final = (
    OPEN_QUEUE
    + DATED
    + """
local claim, place = redis.call('GET', KEYS[22]) or '', redis.call('GET', KEYS[23]) or ''
if claim ~= ARGV[2] or place ~= ARGV[3] then
  return string.match(place, '^%S+ %d+ .-(%S+)$') == ARGV[7] and 'queued' or 'changed'
end
local queue = open(1)
if queue.ahead + queue.steps >= tonumber(ARGV[1]) then return 'full' end
local message, expires_s = dated(unpack(ARGV, 8, 10))
return push(queue, ARGV[4], KEYS[22], KEYS[23], ARGV[5], ARGV[6], ARGV[7], message, expires_s) or 'queued'
"""
)


class Lost(NamedTuple):
    """A lost job that must be queued again.

    Attributes:
        since_us: the result backend's time before the client found the loss; 0 if the client does not need it.
    """

    standing: Standing
    since_us: int


def submit(
    prefix: str, submissions: Sequence[Submission], *, max_queue: int, submitted_before: int = 0
) -> Operation[list[bool]]:
    """Queue, in order, each message whose id is new or belongs to a lost job; return for each whether it was queued.

    A message is not queued if its id belongs to a job with the same payload that exists already.

    Args:
        submissions: at most a few hundred, because Redis serves no other client during the script.
        submitted_before: the number of the call's jobs in earlier chunks; only the error message uses it.

    Raises:
        JobConflict: an id was used with another payload. Only the jobs before it are queued.
        QueueFull: the queue is full. Only the jobs before the first that does not fit are queued.
    """
    done: list[bool] = []
    lost: dict[str, Lost] | None = None
    while len(done) < len(submissions):
        rest = submissions[len(done) :]
        count, outcome, are_new = yield _call(prefix, rest, max_queue, then="stop" if lost is None else "go on")
        for submission, is_new in zip(rest, are_new, strict=False):
            if not is_new and lost and submission.job_id in lost:
                anew = _submit_anew(
                    prefix, submission, lost[submission.job_id], max_queue, submitted_before + len(done)
                )
                done.append((yield from anew))
            else:
                done.append(bool(is_new))
        if outcome == b"queued":
            break
        refused, number = rest[count], submitted_before + len(done)
        if outcome == b"full":
            raise _full(refused, max_queue, number)
        if outcome == b"claimed":
            # Find the lost jobs before queueing more messages: if a queue is empty, no job can be waiting there.
            lost = yield from _lost(prefix, rest[count:])
            continue
        if not lost or refused.job_id not in lost:
            raise JobConflict(
                f"job id {refused.job_id} was already used with another payload; "
                f"send the same payload or choose another id.{_before(number)}"
            )
        done.append((yield from _submit_anew(prefix, refused, lost[refused.job_id], max_queue, number)))
    return done


def queue_keys(prefix: str, queue: Queue) -> tuple[str, ...]:
    """Return the keys of a queue that a script with `OPEN_QUEUE` needs."""
    name = queue_name(prefix, queue)
    return (name, rung_name(name), taken_name(name), *step_names(name))


def _call(prefix: str, submissions: Sequence[Submission], max_queue: int, *, then: str) -> Call:
    queues = list(dict.fromkeys(submission.queue for submission in submissions))
    keys = [key for queue in queues for key in queue_keys(prefix, queue)]
    arguments: list[str | int] = [max_queue, len(queues), then, *queues]
    for each in submissions:
        keys += claim_and_place(prefix, each.job_id)
        number = queues.index(each.queue) + 1
        arguments += (number, each.fingerprint, each.claim_ttl_s, each.life, *_undated(each))
    if len(submissions) == 1:
        doubt = f" Job {submissions[0].job_id} may have been queued; submitting it again with this job_id is safe."
    else:
        doubt = f" Some of {len(submissions)} jobs may have been queued; with job_ids, submitting them again is safe."
    return Call("broker", ("EVAL", _SUBMIT, len(keys), *keys, *arguments), doubt)


def _lost(prefix: str, submissions: Sequence[Submission]) -> Operation[dict[str, Lost]]:
    """Return which of these jobs are lost, so that they must be queued again although their ids are claimed.

    A job that may be lost, after another program purged the queue, counts as lost if the payload is the same: it is
    better to queue the same message twice than not to queue it.
    """
    since_us = 0
    while True:
        found = yield from examine(prefix, [submission.job_id for submission in submissions])
        lost: dict[str, Lost] = {}
        has_another_payload = False
        for submission in submissions:
            standing = found[submission.job_id]
            is_same = standing.traces.claim == submission.fingerprint.encode()
            if standing.is_lost or (standing.is_doubtful and is_same):
                lost[submission.job_id] = Lost(standing, since_us)
                has_another_payload |= not is_same
        if since_us or not has_another_payload:
            return lost
        since_us = yield from server_time_us("results")  # `forget_lost` needs this time; then examine the jobs again


def _submit_anew(
    prefix: str, submission: Submission, found: Lost, max_queue: int, submitted_before: int
) -> Operation[bool]:
    """Queue a message whose id belongs to a lost job; return whether it was queued, as `submit` does."""
    seen, since_us = found
    if seen.traces.claim != submission.fingerprint.encode():
        # A worker that was frozen with the lost message must not answer the new job.
        keep_s = FROZEN_S + submission.claim_ttl_s
        if (yield from forget_lost(submission.job_id, seen.traces.life, since_us, keep_s=keep_s)) is None:
            return (yield from _submit_again(prefix, submission, max_queue, submitted_before))
    keys = (*queue_keys(prefix, submission.queue), *claim_and_place(prefix, submission.job_id))
    arguments = (
        *(max_queue, *seen.traces.as_seen, submission.queue, submission.fingerprint),
        *(submission.claim_ttl_s, submission.life, *_undated(submission)),
    )
    doubt = f" Job {submission.job_id} may have been queued; submitting it again with this job_id is safe."
    outcome = yield Call("broker", ("EVAL", _SUBMIT_ANEW, len(keys), *keys, *arguments), doubt)
    if outcome == b"queued":
        return True
    if outcome == b"full":
        raise _full(submission, max_queue, submitted_before)
    return (yield from _submit_again(prefix, submission, max_queue, submitted_before))


def _submit_again(prefix: str, submission: Submission, max_queue: int, submitted_before: int) -> Operation[bool]:
    """Submit a job again, because another client has changed the records of its id in the meantime."""
    (submitted,) = yield from submit(prefix, [submission], max_queue=max_queue, submitted_before=submitted_before)
    return submitted


def _undated(submission: Submission) -> tuple[str, int | str, str]:
    """Return the arguments of `DATED`."""
    lifetime_us = "" if submission.expires_in_s is None else round(submission.expires_in_s * 1_000_000)
    return submission.message.before, lifetime_us, submission.message.after


def _full(submission: Submission, max_queue: int, submitted_before: int) -> QueueFull:
    advice = f"try again in {RETRY_AFTER_S:g} s.{_before(submitted_before)}"
    return queue_full(submission.list_name, max_queue, advice)


def _before(count: int) -> str:
    return f" Jobs that were queued before this one: {count:,}." if count else ""
