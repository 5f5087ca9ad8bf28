"""Purges and FLUSHALLs by other programs; one script both destroys the data and returns the destroyed jobs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from producer.contract.names import QUEUES, answer_key, queue_name, rung_name, taken_name
from producer.operations.answers import Answer
from tests.chaos.servers import Server

PREFIX = "nameshot"
_JOB_ID = re.compile(rb"chaos-\d+-\d+")

#: Purges as ``celery purge`` does through kombu. KEYS: each queue's list, its list of rung messages, its counter.
#: Returns for each queue the number of its last message, and the messages.
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
#: Returns every value under our keys that may be a message.
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
#: Returns each answer's key and value.
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
    """Jobs whose message or answer was destroyed.

    Attributes:
        is_answer: whether the answer was destroyed, rather than the message.
        queue: the purged queue's short name; None after a FLUSHALL.
        last: the number of the queue's last message. Until as many messages were taken, clients may report that the
            jobs wait.
    """

    job_ids: frozenset[str]
    is_answer: bool = False
    queue: str | None = None
    last: int = 0


def purge(broker: Server) -> list[Destroyed]:
    """Destroy the waiting messages of every queue."""
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
    """Destroy everything in the broker: messages, claims, leases, and what workers hold."""
    with broker.connect() as admin:
        return [Destroyed(jobs_in(admin.eval(_FLUSH_BROKER, 0)))]


def flush_results(results: Server) -> list[Destroyed]:
    """Destroy every answer."""
    with results.connect() as admin:
        found = admin.eval(_FLUSH_RESULTS, 0)
    prefix = answer_key("").encode()
    answers = {key.removeprefix(prefix).decode(): value for key, value in zip(found[::2], found[1::2], strict=True)}
    answered = frozenset(job_id for job_id, value in answers.items() if Answer.from_meta(value, job_id).is_terminal)
    return [Destroyed(answered, is_answer=True)]


def jobs_in(messages: Iterable[bytes]) -> frozenset[str]:
    """Return the ids of this run's jobs in the messages."""
    return frozenset(job_id.decode() for message in messages for job_id in _JOB_ID.findall(message))
