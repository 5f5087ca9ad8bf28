"""The HTTP API's record of a job: who owns it, when it was made and which request made it.

The record lies in the result backend. It is written before the job is queued, so a program that dies in between leaves
a record without a job: no such job exists, and the same request queues it. A record lives as long as the job's claim;
whichever program reads the answer first shortens the record's life to that of the answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, Self

from producer.contract.names import answer_key, open_key, record_key
from producer.operations.answers import Answer
from producer.operations.ending import store_end
from producer.operations.exchanges import Call, Operation
from producer.operations.standing import Standing, examine_unanswered, read_answers

#: Writes a record, or finds one of the same id.
#: KEYS: the record; the set of the owner's open jobs. ARGV: the job's id; the record's TTL in seconds; the digest of
#: the request's body; the owner; the queue; the maximum number of open jobs, empty if there is none; the stored record
#: that this one replaces, empty if none.
#: Returns 'new', 'found' or 'full'; the stored record; this server's time in milliseconds. The record of a job without
#: an answer counts in ``tries`` the requests that may still queue the job.
_BEGIN: Final = """
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local found = redis.call('GET', KEYS[1])
if found and found ~= ARGV[7] then
  local record = cjson.decode(found)
  if record.body == ARGV[3] and not record.kept_until then
    record.tries = record.tries + 1
    found = cjson.encode(record)
    redis.call('SET', KEYS[1], found, 'KEEPTTL')
    redis.call('ZADD', KEYS[2], 'NX', record.created, ARGV[1])
  end
  return {'found', found, now_ms}
end
local is_added = redis.call('ZADD', KEYS[2], now_ms, ARGV[1]) == 1
if ARGV[6] ~= '' and is_added and redis.call('ZCARD', KEYS[2]) > tonumber(ARGV[6]) then
  redis.call('ZREM', KEYS[2], ARGV[1])
  return {'full', '', now_ms}
end
local made = cjson.encode({body = ARGV[3], created = now_ms, owner = ARGV[4], queue = ARGV[5], tries = 1})
redis.call('SET', KEYS[1], made, 'EX', ARGV[2])
if redis.call('TTL', KEYS[2]) < tonumber(ARGV[2]) then redis.call('EXPIRE', KEYS[2], ARGV[2]) end
return {'new', made, now_ms}
"""

#: Takes back what `_BEGIN` wrote for a job that was not queued, unless another request may still queue it.
#: KEYS: the record; the set of the owner's open jobs. ARGV: the job's id.
_ABANDON: Final = """
local found = redis.call('GET', KEYS[1])
if not found then return end
local record = cjson.decode(found)
if record.kept_until then return end
record.tries = record.tries - 1
if record.tries > 0 then
  redis.call('SET', KEYS[1], cjson.encode(record), 'KEEPTTL')
else
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
end
"""

#: Gives the records of answered jobs the lives of their answers, and closes the jobs.
#: KEYS: for each job its answer, its record, and the set of its owner's open jobs. ARGV: the jobs' ids.
#: Returns for each job when its answer expires, in milliseconds since the epoch; 0 if it has expired.
_SETTLE: Final = """
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local kept = {}
for i, id in ipairs(ARGV) do
  local answer, key, open = unpack(KEYS, 3 * i - 2, 3 * i)
  local found, left_ms = redis.call('GET', key), redis.call('PTTL', answer)
  kept[i] = left_ms > 0 and now_ms + left_ms or 0
  if found and left_ms > 0 then
    local record = cjson.decode(found)
    if record.kept_until then
      kept[i] = record.kept_until
    else
      record.kept_until = kept[i]
      redis.call('SET', key, cjson.encode(record), 'PX', left_ms)
      redis.call('ZREM', open, id)
    end
  end
end
return kept
"""

#: A record of this age belongs to no request that is still under way, since none waits this long for Redis.
STALE_MS: Final = 10_000


@dataclass(frozen=True, slots=True)
class JobRecord:
    """The HTTP API's record of one job.

    Attributes:
        body: the digest of the request's body.
        created_ms: when the record was made, in milliseconds since the epoch by the result backend's clock.
        kept_until_ms: when the answer expires, once a program has read the answer.
        stored: the record as the result backend holds it.
    """

    owner: str
    queue: str
    body: str
    created_ms: int
    kept_until_ms: int | None = None
    is_deleted: bool = False
    stored: bytes = field(default=b"", repr=False, compare=False)

    @classmethod
    def read(cls, stored: bytes | None) -> Self | None:
        """Parse a stored record; return None if there is none, or if another program wrote it."""
        try:
            value = json.loads(stored or b"")
            kept = value.get("kept_until")
            return cls(
                *(value["owner"], value["queue"], value["body"], int(value["created"])),
                kept_until_ms=None if kept is None else int(kept),
                is_deleted=bool(value.get("deleted")),
                stored=stored or b"",
            )
        except (ValueError, LookupError, TypeError, AttributeError):
            return None


class Begun(NamedTuple):
    """What a request found when it was to make a record."""

    outcome: Literal["new", "found", "full"]
    record: JobRecord | None
    now_ms: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A job as the HTTP API sees it: its state, and the record if the API made the job.

    Attributes:
        kept_until_ms: when a terminal answer expires, in milliseconds since the epoch.
    """

    standing: Standing
    record: JobRecord | None
    kept_until_ms: int | None = None

    @property
    def answer(self) -> Answer:
        """The job's current answer."""
        return self.standing.answer


def begin(
    prefix: str,
    job_id: str,
    *,
    owner: str,
    queue: str,
    body: str,
    ttl_s: int,
    max_open: int | None,
    instead_of: bytes = b"",
) -> Operation[Begun]:
    """Write the record of a job that is about to be queued, or find the one that stands.

    Args:
        max_open: how many jobs without an answer the owner may have.
        instead_of: a stored record that this one replaces.
    """
    keys = (record_key(prefix, job_id), open_key(prefix, owner))
    most = "" if max_open is None else max_open
    arguments = (job_id, ttl_s, body, owner, queue, most, instead_of)
    outcome, stored, now_ms = yield Call("results", ("EVAL", _BEGIN, len(keys), *keys, *arguments))
    name: Literal["new", "found", "full"] = bytes(outcome).decode()  # type: ignore[assignment]  # the script's words
    return Begun(name, JobRecord.read(stored), int(now_ms))


def abandon(prefix: str, job_id: str, owner: str) -> Operation[None]:
    """Take back the record of a job that was not queued."""
    keys = (record_key(prefix, job_id), open_key(prefix, owner))
    yield Call("results", ("EVAL", _ABANDON, len(keys), *keys, job_id), may_fail=True)


def look(prefix: str, job_ids: Sequence[str], *, result_ttl_s: int) -> Operation[dict[str, Seen]]:
    """Return the jobs by their ids, each at most once; an id that no job has is ``unknown``."""
    seen, expired = yield from _look(prefix, job_ids)
    if expired:
        # Store what the broker's records say, so that the state stands and is kept as long as any other answer.
        for job_id in expired:
            yield from store_end(job_id, "expired", seen[job_id].standing.traces.life, result_ttl_s)
        again, _ = yield from _look(prefix, expired)
        seen |= again
    return seen


def _look(prefix: str, job_ids: Sequence[str]) -> Operation[tuple[dict[str, Seen], list[str]]]:
    """Look at jobs; also return the ids of those that have expired without a stored answer."""
    job_ids = list(dict.fromkeys(job_ids))
    if not job_ids:
        return {}, []
    keys = (*map(answer_key, job_ids), *(record_key(prefix, job_id) for job_id in job_ids))
    stored = yield Call("results", ("MGET", *keys))
    answers = read_answers(job_ids, stored[: len(job_ids)])
    records = dict(zip(job_ids, map(JobRecord.read, stored[len(job_ids) :]), strict=True))
    standings = yield from examine_unanswered(prefix, answers)
    terminal = [job_id for job_id in job_ids if standings[job_id].answer.is_terminal]
    expired = [
        job_id for job_id in terminal if standings[job_id].answer.state == "expired" and not answers[job_id].is_terminal
    ]
    kept = {job_id: record.kept_until_ms for job_id, record in records.items() if record is not None}
    kept |= yield from _settle(
        prefix,
        {job_id: records[job_id] for job_id in terminal if kept.get(job_id) is None and job_id not in expired},
    )
    return {job_id: Seen(standings[job_id], records[job_id], kept.get(job_id)) for job_id in job_ids}, expired


def _settle(prefix: str, records: Mapping[str, JobRecord | None]) -> Operation[dict[str, int | None]]:
    """Close answered jobs; return when the answer of each expires."""
    if not records:
        return {}
    keys = [
        key
        for job_id, record in records.items()
        for key in (answer_key(job_id), record_key(prefix, job_id), open_key(prefix, record.owner if record else "-"))
    ]
    kept = yield Call("results", ("EVAL", _SETTLE, len(keys), *keys, *records))
    return {job_id: int(until_ms) or None for job_id, until_ms in zip(records, kept, strict=True)}
