"""Delete a queue's waiting jobs and free their ids. The Redis user needs the worker's role."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from producer.contract import names
from producer.errors import BrokerUnavailable, InvalidJob
from producer.messages.submission import LONGEST_WAIT_S, check_job_id
from producer.operations.answers import Answer
from producer.operations.exchanges import Call, Operation, server_time_us
from producer.operations.forgetting import forget_lost
from producer.operations.submitting import FROZEN_S

#: The maximum number of messages in one script, which then takes about a millisecond; Redis serves no other client
#: meanwhile.
MAX_MESSAGES: Final = 200
#: The size of the messages in one script at which `purge` aims, by the average size of the messages before them. The
#: client reads them and sends them back; even a slow network carries much more than this within a call's timeout.
AIM_BYTES: Final = 500_000

#: Removes messages from the end of a list, the oldest first, and the claim of each. It skips a message that a worker
#: has taken since the caller read the list, and keeps the claim of an id that has another message or an answer. It
#: also skips a message that a worker has requeued, unless the caller has *barred* it: the worker may be frozen and must
#: not answer the job when it wakes, so `forget_lost` first records that no worker may answer this message.
#: Each message has a number, and counts as taken once its queue's counter has reached the number. So the script
#: increments the counter only for a message that was next in the queue; otherwise jobs ahead of the removed message
#: would count as taken. A message that was requeued since the caller read the list is then the next one.
#: KEYS: the list; the list whose messages workers take before this one's, or the same list; its queue's counter; the
#: hash of jobs in hand; then the claim key and the place key of each job. ARGV: 'count' if the counter counts the
#: list's messages; then for each message: the message; its job's id, empty if the id must not be freed; its life (its
#: delivery tag); and 'barred', or empty if it is not.
#: Returns how many messages it removed, then the index of each message that it skipped because it is not barred.
_PURGE: Final = """
local removed, counted, to_bar = 0, 0, {}
local is_front = KEYS[1] == KEYS[2] or redis.call('LLEN', KEYS[2]) == 0
for i = 1, (#KEYS - 4) / 2 do
  local raw, id, life, barred = unpack(ARGV, 4 * i - 2, 4 * i + 1)
  local returned = {}
  for _, field in ipairs(id == '' and {} or {id, id .. ' ' .. life}) do
    local hand = redis.call('HGET', KEYS[4], field)
    if hand and string.sub(hand, 1, 9) == 'returned ' then returned[#returned + 1] = field end
  end
  if #returned > 0 and barred == '' then
    to_bar[#to_bar + 1] = i - 1
  else
    local is_next = is_front and redis.call('LRANGE', KEYS[1], -1, -1)[1] == raw
    if redis.call('LREM', KEYS[1], -1, raw) == 1 then
      removed = removed + 1
      if is_next then counted = counted + 1 end
      if id ~= '' then
        local claim, place = KEYS[2 * i + 3], KEYS[2 * i + 4]
        local its_life = string.match(redis.call('GET', place) or '', ' (%S+)$')
        if not its_life or its_life == life then redis.call('DEL', claim, place) end
        if #returned > 0 then redis.call('HDEL', KEYS[4], unpack(returned)) end
      end
    end
  end
end
if ARGV[1] == 'count' and counted > 0 then redis.call('INCRBY', KEYS[3], counted) end
return {removed, unpack(to_bar)}
"""


def purge(prefix: str, queue: names.Queue) -> Operation[int]:
    """Delete the messages that wait in a queue, whatever their priority; return their number.

    The operation deletes at most as many messages from each list as the list holds when its turn comes, so that it ends
    even if a program keeps submitting. A program that dies half-way leaves nothing to repair, and the call may be
    repeated.
    """
    name, removed = names.queue_name(prefix, queue), 0
    rung = names.rung_name(name)
    try:
        # Visit the lists in the order in which workers take from them, and the rung list again after the queue's own,
        # because an idle worker's BLMOVE moves messages there.
        for waiting in (rung, name, rung, *names.step_names(name)):
            left, size = (yield Call("broker", ("LLEN", waiting))), 1
            while left > 0:
                messages = yield Call("broker", ("LRANGE", waiting, -min(left, size), -1))
                if not messages:
                    break
                removed += yield from _remove(prefix, name, waiting, messages[::-1])
                left -= len(messages)
                size = max(1, min(MAX_MESSAGES, AIM_BYTES * len(messages) // sum(map(len, messages))))
    except BrokerUnavailable as error:
        if not removed:
            raise
        raise BrokerUnavailable(
            f"{error} Waiting jobs deleted before that: {removed:,}. Repeat the call.", may_pass=error.may_pass
        ) from None
    return removed


def _remove(prefix: str, queue: str, waiting: str, messages: Sequence[bytes]) -> Operation[int]:
    jobs = [(message, *_id_and_life(message)) for message in messages]
    removed = 0
    while jobs:
        count, *to_bar = yield from _remove_each(prefix, queue, waiting, jobs)
        removed += count
        jobs = [jobs[index] for index in to_bar]  # workers requeued these after `_remove_each` had read who held them
    return removed


def _remove_each(prefix: str, queue: str, waiting: str, jobs: Sequence[tuple[bytes, str, str]]) -> Operation[list[int]]:
    """Remove these messages; return the reply of `_PURGE`."""
    since_us = yield from server_time_us("results")
    fields = [field for _, job_id, life in jobs for field in (job_id, f"{job_id} {life}")]
    hands: list[bytes | None] = yield Call("broker", ("HMGET", names.in_hand_key(prefix), *fields))
    answers: list[bytes | None] = yield Call("results", ("MGET", *(names.answer_key(job_id) for _, job_id, _ in jobs)))
    first = names.rung_name(queue) if waiting == queue else waiting
    keys = [waiting, first, names.taken_name(queue), names.in_hand_key(prefix)]
    # Messages in a priority's list have no number in their queue yet.
    arguments: list[str | bytes] = ["" if waiting in names.step_names(queue) else "count"]
    for (message, job_id, life), payload, *where in zip(jobs, answers, hands[::2], hands[1::2], strict=True):
        keys += names.claim_and_place(prefix, job_id)
        is_answered = payload is not None and Answer.from_meta(payload, job_id).is_settled
        was_held = any(hand is not None and hand.startswith(b"returned ") for hand in where)
        if was_held and job_id and not is_answered:
            # Bar the message before the script frees its id: the worker that held it may answer at any time.
            yield from forget_lost(job_id, life, since_us, keep_s=LONGEST_WAIT_S + FROZEN_S)
        arguments += (message, "" if is_answered else job_id, life, "barred" if was_held else "")
    doubt = " Some jobs may have been deleted; repeat the call."
    replies: list[int] = yield Call("broker", ("EVAL", _PURGE, len(keys), *keys, *arguments), doubt)
    return replies


def _id_and_life(message: bytes) -> tuple[str, str]:
    """Return the id and the life of a message; both are empty if no client of ours could have claimed its id."""
    try:
        envelope: Any = json.loads(message)
        job_id, life = envelope["headers"]["id"], envelope.get("properties", {}).get("delivery_tag")
        return check_job_id(job_id), life if isinstance(life, str) and life.isprintable() else ""
    except (InvalidJob, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return "", ""
