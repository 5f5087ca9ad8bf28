"""Delete an answered job of the HTTP API; a tombstone holds its id, so that a late second execution stores nothing."""

from __future__ import annotations

from typing import Final

from producer.contract.names import answer_key, forget_key, place_key, record_key
from producer.operations.answers import revoked_meta
from producer.operations.exchanges import Call, Operation, Together
from producer.operations.traces import JobTraces

#: Replaces a terminal answer by one that says that its owner deleted it; both keys keep the answer's life.
#: KEYS: the answer, the record. ARGV: the new answer's JSON; the TTL of an answer in seconds.
#: Returns 1 if the answer is deleted now, or was before, and 0 if there is no terminal one.
_DELETE: Final = """
local existing, left_ms = redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1])
local readable, meta = pcall(cjson.decode, existing or '')
if not readable or type(meta) ~= 'table'
    or (meta.status ~= 'SUCCESS' and meta.status ~= 'FAILURE' and meta.status ~= 'REVOKED') then
  return 0
end
if left_ms <= 0 then left_ms = ARGV[2] * 1000 end  -- another program stored an answer that does not expire
redis.call('SET', KEYS[1], ARGV[1], 'PX', left_ms)
local found = redis.call('GET', KEYS[2])
if found then
  local record = cjson.decode(found)
  local left = {body = '', created = record.created, deleted = true, kept_until = record.kept_until, tries = 0}
  left.owner, left.queue = record.owner, record.queue
  redis.call('SET', KEYS[2], cjson.encode(left), 'PX', left_ms)
end
return 1
"""


def delete(prefix: str, job_id: str, *, result_ttl_s: int) -> Operation[bool]:
    """Delete the answer of a job that has a terminal one, and have workers remove its messages and dead letters.

    Returns whether this was done. The call may be repeated: until workers have been told, the place key is there.
    """
    place = yield Call("broker", ("GET", place_key(prefix, job_id)))
    keys = (answer_key(job_id), record_key(prefix, job_id))
    done = yield Call("results", ("EVAL", _DELETE, len(keys), *keys, revoked_meta(job_id, "deleted"), result_ttl_s))
    if not done:
        return False
    life = JobTraces(place=place).life
    # Without its place key, no letter of this job counts as that of a job that was sent again.
    told = (("LPUSH", forget_key(prefix), f"{job_id} {life}"), ("DEL", place_key(prefix, job_id)))
    yield Together("broker", told, if_failed=" The answer is deleted; repeat the call to delete its dead letters too.")
    return True


def is_half_deleted(prefix: str, job_id: str) -> Operation[bool]:
    """Return whether the answer of a deleted job is gone, but workers were not told to remove what else is left."""
    return bool((yield Call("broker", ("GET", place_key(prefix, job_id)))))
