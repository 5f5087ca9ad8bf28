"""Record in the result backend which messages of a freed id workers must not answer any more."""

from __future__ import annotations

from typing import Final

from producer.contract.names import answer_key, forgotten_key
from producer.operations.answers import ANY_LIFE
from producer.operations.exchanges import Call, Operation

#: Deletes a job's answer, and records that workers must not answer the job's messages: a message may be delivered
#: again, or a frozen worker may hold it.
#: KEYS: the answer, the forgotten set. ARGV: how many seconds to keep the entries; the life of the message in the
#: broker, empty if unknown; for a lost job, this server's time in microseconds before the caller found the loss, and
#: empty for an answered job; `ANY_LIFE`.
#: Returns the lives that it found, or nil if the answer has changed since the caller read it.
#: If there is a terminal answer, every message that a worker took until now belonged to that job. For a lost job, a
#: message that a worker took after the given time may belong to a new job, and so may an answer in the state STARTED.
_FORGET_ANSWER: Final = """
local existing = redis.call('GET', KEYS[1])
local readable, meta = pcall(cjson.decode, existing or '')
if not readable or type(meta) ~= 'table' then meta = {} end
local is_open = type(meta.status) == 'string'
  and meta.status ~= 'SUCCESS' and meta.status ~= 'FAILURE' and meta.status ~= 'REVOKED'
if ARGV[3] == '' and (not existing or is_open) then return end
if ARGV[3] ~= '' and existing and not is_open then return end
local life, its_life = ARGV[2], type(meta.life) == 'string' and meta.life or ''
local now = redis.call('TIME')
local now_us = now[1] * 1000000 + now[2]
local since = tonumber(ARGV[3]) or now_us
local lives = {}
if life ~= '' then lives[1] = life end
local is_another = its_life ~= '' and its_life ~= life
if is_another and ARGV[3] == '' then lives[#lives + 1] = its_life end
if not is_another or ARGV[3] == '' then redis.call('DEL', KEYS[1]) end
local too_old = string.format('%.0f', now_us - ARGV[1] * 1000000)
if type(redis.pcall('ZREMRANGEBYSCORE', KEYS[2], '-inf', too_old)) == 'table' then
  redis.call('DEL', KEYS[2])  -- the key held no sorted set
end
local score = string.format('%.0f', since)
for _, member in ipairs({'', lives[1] or ARGV[4], lives[2]}) do
  redis.call('ZADD', KEYS[2], 'GT', score, member)
end
redis.call('EXPIRE', KEYS[2], ARGV[1])
return lives
"""


def forget_answered(job_id: str, life: str, *, keep_s: int) -> Operation[list[str] | None]:
    """Delete a job's answer, and record that workers must not answer the job's messages.

    Returns the lives of these messages, or None if there is no terminal answer.

    Args:
        life: the delivery tag of the job's message, from the place key; empty if unknown.
        keep_s: how long a copy of the message may still exist.
    """
    return (yield from _forget(job_id, life, "", keep_s))


def forget_lost(job_id: str, life: str, since_us: int, *, keep_s: int) -> Operation[list[str] | None]:
    """Do the same as `forget_answered` for a lost job; returns None if a terminal answer has arrived.

    Args:
        since_us: the result backend's time before the job was found to be lost.
    """
    return (yield from _forget(job_id, life, since_us, keep_s))


def _forget(job_id: str, life: str, since_us: int | str, keep_s: int) -> Operation[list[str] | None]:
    keys = (answer_key(job_id), forgotten_key(job_id))
    lives = yield Call("results", ("EVAL", _FORGET_ANSWER, len(keys), *keys, keep_s, life, since_us, ANY_LIFE))
    return None if lives is None else [each.decode(errors="replace") for each in lives]
