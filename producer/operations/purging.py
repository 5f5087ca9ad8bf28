"""Delete a queue's waiting jobs and free their ids. This needs the worker's role."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from producer.contract import names
from producer.errors import InvalidJob
from producer.messages.submission import LONGEST_WAIT_S, check_job_id
from producer.operations.answers import Answer
from producer.operations.exchanges import Call, Operation
from producer.operations.forgetting import forget_lost, server_time_us
from producer.operations.submitting import FROZEN_S

#: Messages in one script, during which Redis serves no other client: about a millisecond.
MAX_MESSAGES: Final = 200
#: Bytes of messages in one script, read and sent back: a slow network carries them well within a call's timeout.
MAX_BYTES: Final = 500_000

#: Removes messages from the end of a list, the oldest first, and the claim of each. It leaves alone a message that a
#: worker has taken since the caller read the list, and the claim of an id that has another message or an answer.
#: KEYS: the list, its queue's counter, the hash of jobs in hand, then the claim and the place of each message. ARGV:
#: 'count' if the counter counts them, then each message, its job's id and its life; the id is empty if not to be freed.
#: Returns how many messages it removed, then the index of each whose id is free and that a worker had held before.
_PURGE: Final = """
local removed, returned = 0, {}
for i = 1, (#KEYS - 3) / 2 do
  local raw, id, life = unpack(ARGV, 3 * i - 1, 3 * i + 1)
  if redis.call('LREM', KEYS[1], -1, raw) == 1 then
    removed = removed + 1
    if id ~= '' then
      local claim, place = KEYS[2 * i + 2], KEYS[2 * i + 3]
      local its_life = string.match(redis.call('GET', place) or '', ' (%S+)$')
      if not its_life or its_life == life then redis.call('DEL', claim, place) end
      local was_taken = false
      for _, field in ipairs({id, id .. ' ' .. life}) do
        local hand = redis.call('HGET', KEYS[3], field)
        if hand and string.sub(hand, 1, 9) == 'returned ' then
          redis.call('HDEL', KEYS[3], field)
          was_taken = true
        end
      end
      if was_taken then returned[#returned + 1] = i - 1 end
    end
  end
end
if ARGV[1] == 'count' and removed > 0 then redis.call('INCRBY', KEYS[2], removed) end
return {removed, unpack(returned)}
"""


def purge(prefix: str, queue: names.Queue) -> Operation[int]:
    """Delete the messages that wait in a queue, of any priority; returns how many.

    It deletes at most as many as waited when it began, so that a program that keeps submitting cannot keep it busy.
    """
    name = names.queue_name(prefix, queue)
    removed = 0
    for waiting in names.waiting_names(name):
        # Messages in a priority's list have no number in their queue yet.
        counting = "" if waiting in names.step_names(name) else "count"
        left, size = (yield Call("broker", ("LLEN", waiting))), 1
        while left > 0:
            messages = yield Call("broker", ("LRANGE", waiting, -min(left, size), -1))
            if not messages:
                break
            removed += yield from _remove(prefix, name, waiting, messages[::-1], counting)
            left -= len(messages)
            size = max(1, min(MAX_MESSAGES, MAX_BYTES * len(messages) // sum(map(len, messages))))
    return removed


def _remove(prefix: str, queue: str, waiting: str, messages: Sequence[bytes], counting: str) -> Operation[int]:
    whose = [_whose(message) for message in messages]
    since_us = yield from server_time_us()
    answers: list[bytes | None] = yield Call("results", ("MGET", *(names.answer_key(job_id) for job_id, _ in whose)))
    keys = [waiting, names.taken_name(queue), names.in_hand_key(prefix)]
    arguments: list[str | bytes] = [counting]
    for message, (job_id, life), payload in zip(messages, whose, answers, strict=True):
        keys += names.claim_and_place(prefix, job_id)
        is_answered = payload is not None and Answer.from_meta(payload, job_id).is_terminal
        arguments += (message, "" if is_answered else job_id, life)
    doubt = " Some jobs may have been deleted; repeat the call."
    removed, *returned = yield Call("broker", ("EVAL", _PURGE, len(keys), *keys, *arguments), doubt)
    for index in returned:
        # The worker that held it before may be frozen and still hold a copy.
        job_id, life = whose[index]
        yield from forget_lost(job_id, life, since_us, keep_s=LONGEST_WAIT_S + FROZEN_S)
    return int(removed)


def _whose(message: bytes) -> tuple[str, str]:
    """Return the id and the life of a message; both empty if no client of ours could have claimed its id."""
    try:
        envelope: Any = json.loads(message)
        job_id, life = envelope["headers"]["id"], envelope.get("properties", {}).get("delivery_tag")
        return check_job_id(job_id), life if isinstance(life, str) and life.isprintable() else ""
    except (InvalidJob, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return "", ""
