"""What strangers do to the data under living connections, and which jobs that destroys, in one step of the server."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from producer.contract.names import QUEUES, answer_key, queue_name, rung_name, taken_name
from producer.operations.answers import Answer
from tests.chaos.servers import Server

PREFIX = "nameshot"
_JOB_ID = re.compile(rb"chaos-\d+-\d+")

#: As kombu's own purge, which ``celery purge`` calls. KEYS: of each queue its list, that of what has rung, its counter.
#: Returns for each the number that its last message had, and the messages.
_PURGE = """
local found = {}
for i = 1, #KEYS, 3 do
  local taken = tonumber(redis.call('GET', KEYS[i + 2]) or 0)
  local last = taken + redis.call('LLEN', KEYS[i]) + redis.call('LLEN', KEYS[i + 1])
  found[#found + 1] = {last, redis.call('LRANGE', KEYS[i], 0, -1)}
  redis.call('DEL', KEYS[i])
end
return found
"""
#: Returns everything that any key of ours held and that may be a message.
_FLUSH_BROKER = """
local found = {}
for _, key in ipairs(redis.call('KEYS', 'nameshot*')) do
  local kind, values = redis.call('TYPE', key).ok, {}
  if kind == 'list' then values = redis.call('LRANGE', key, 0, -1) end
  if kind == 'hash' then values = redis.call('HVALS', key) end
  if kind == 'zset' then values = redis.call('ZRANGE', key, 0, -1) end
  for _, value in ipairs(values) do found[#found + 1] = value end
end
redis.call('FLUSHALL')
return found
"""
#: Returns each answer's key and what it held.
_FLUSH_RESULTS = """
local found = {}
for _, key in ipairs(redis.call('KEYS', 'celery-task-meta-*')) do
  if redis.call('TYPE', key).ok == 'string' then
    found[#found + 1] = key
    found[#found + 1] = redis.call('GET', key)
  end
end
redis.call('FLUSHALL')
return found
"""


@dataclass(frozen=True, slots=True)
class Destroyed:
    """Jobs of which a message, or the answer, is no more.

    Attributes:
        is_answer: the answer; otherwise a message.
        queue: for a purge, the queue's short name, and the number of the last message. Until the queue has passed it
            the jobs may be said to wait.
    """

    job_ids: frozenset[str]
    is_answer: bool = False
    queue: str | None = None
    last: int = 0


def purge(broker: Server) -> list[Destroyed]:
    """Every queue's waiting messages."""
    names = [queue_name(PREFIX, queue) for queue in QUEUES]
    keys = [key for name in names for key in (name, rung_name(name), taken_name(name))]
    with broker.connect() as admin:
        found = admin.eval(_PURGE, len(keys), *keys)
    return [
        Destroyed(jobs_in(messages), queue=queue, last=last)
        for queue, (last, messages) in zip(QUEUES, found, strict=True)
        if messages
    ]


def flush_broker(broker: Server) -> list[Destroyed]:
    """Everything: messages, claims, what workers hold, their leases."""
    with broker.connect() as admin:
        return [Destroyed(jobs_in(admin.eval(_FLUSH_BROKER, 0)))]


def flush_results(results: Server) -> list[Destroyed]:
    """Every answer."""
    with results.connect() as admin:
        found = admin.eval(_FLUSH_RESULTS, 0)
    prefix = answer_key("").encode()
    answers = {key.removeprefix(prefix).decode(): value for key, value in zip(found[::2], found[1::2], strict=True)}
    answered = frozenset(job_id for job_id, value in answers.items() if Answer.from_meta(value, job_id).is_terminal)
    return [Destroyed(answered, is_answer=True)]


def jobs_in(messages: Iterable[bytes]) -> frozenset[str]:
    """The ids of the jobs of a run that these messages are of."""
    return frozenset(job_id.decode() for message in messages for job_id in _JOB_ID.findall(message))
