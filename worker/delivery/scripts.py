"""The scripts that move messages. Each is atomic: at any moment a message is in a queue or held by one worker.

A hash of in-flight messages maps a delivery tag to the queue's name, a line feed, and the bytes of the message as they
were in the queue. Each delivery gets a new tag, so that a worker that lost a message to another one can no longer
acknowledge or requeue it; after a space the tag has the job's id. The same scripts maintain two records by which a
client can tell whether a job still exists (`producer.contract`): how many messages were taken from each queue, and
where the message of each taken job is.
"""

from __future__ import annotations

from typing import Final

from worker.delivery.lua import JOB_ID, KEEP_LETTER, MAX_MOVED_BYTES, PARTS, PUT_BACK, WHEREABOUTS

#: Takes the first waiting message for a worker that has a lease; without one, other workers may be reclaiming its hash.
#: KEYS: the queues in the order to try them; in the same order their lists of rung messages
#: (`worker.delivery.doorbell`), which are older than the waiting ones, and their counters; then the worker's lease, its
#: in-flight hash, the suspects, the locations of jobs, the set of workers. ARGV: the beginning of the delivery tag; the
#: bytes above which a message is taken but not sent; the number of queues; the worker's name.
#: Of a message of more than four times these bytes only the beginning is held: no worker reads it, and moving it costs
#: Redis time.
#: A message that a worker of an older version requeued is not counted again. Such a worker leaves the location as it
#: was, so the recorded holder is a worker that is no longer listed.
#: Returns {queue, message, deaths, deaths alone, bytes, delivery tag, the id's field or ''}; nil if no message waits;
#: 0 without a lease.
TAKE: Final = (
    JOB_ID
    + WHEREABOUTS
    + """
local queues = tonumber(ARGV[3])
local lease, in_flight, suspects, in_hand, workers = unpack(KEYS, 3 * queues + 1)
if redis.call('EXISTS', lease) == 0 then return 0 end
if redis.call('EXISTS', unpack(KEYS, 1, 2 * queues)) == 0 then return end
local kind = redis.call('TYPE', in_flight).ok
if kind ~= 'none' and kind ~= 'hash' then
  return redis.error_reply('WRONGTYPE the key of the messages in flight holds a ' .. kind)
end
local refused, list
local function pop(key)
  local raw = redis.pcall('RPOP', key)
  if type(raw) == 'table' and raw.err and not string.find(raw.err, 'WRONGTYPE', 1, true) then refused = raw.err end
  list = key
  return type(raw) == 'string' and raw
end
for i = 1, queues do
  local raw = pop(KEYS[queues + i]) or pop(KEYS[i])
  if refused and not raw then return redis.error_reply(refused) end
  if raw then
    local is_read = #raw <= tonumber(ARGV[2])
    local id, life = job_id(raw)
    local known = indexed(id, life)
    local tag = known and ARGV[1] .. ' ' .. known or ARGV[1]
    local held = #raw <= 4 * tonumber(ARGV[2]) and raw or string.sub(raw, 1, ARGV[2] + 1)
    local noted = redis.pcall('HSET', in_flight, tag, KEYS[i] .. '\\n' .. held)
    if type(noted) == 'table' and noted.err then
      redis.call('RPUSH', list, raw)  -- a message that cannot be recorded must not be taken
      return redis.error_reply(noted.err)
    end
    local holder = known and redis.pcall('HGET', in_hand, known)
    local is_counted = type(holder) == 'string' and not string.find(holder, ' ', 1, true)
      and redis.pcall('SISMEMBER', workers, holder) == 0
    if not is_counted then redis.pcall('INCR', KEYS[2 * queues + i]) end
    note(in_hand, known, ARGV[4])
    local name = field(id, known)
    local deaths = name and redis.pcall('HMGET', suspects, name, 'alone ' .. name) or {}
    return {KEYS[i], is_read and raw or '', tonumber(deaths[1]) or 0, tonumber(deaths[2]) or 0, #raw, tag, name or ''}
  end
end
"""
)

#: Deletes a held message. KEYS: the holder's in-flight hash, the locations of jobs. ARGV: the delivery tag, the holder.
#: Returns 1, or 0 if the message is no longer held.
ACKNOWLEDGE: Final = (
    PARTS
    + WHEREABOUTS
    + """
local held = redis.call('HDEL', KEYS[1], ARGV[1])
if held == 1 then drop(KEYS[2], id_in(ARGV[1]), ARGV[2]) end
return held
"""
)

#: Moves the message that rang last back to its queue, which wakes another worker; messages that rang before it stay
#: ahead of it. KEYS: the list of rung messages, the queue.
HAND_ON: Final = """
local raw = redis.call('LPOP', KEYS[1])
if raw then redis.call('RPUSH', KEYS[2], raw) end
"""

#: Requeues one message at the front of its queue. KEYS: the holder's in-flight hash, the locations of jobs, the records
#: of dead letters, their messages, the nine keys of `PUT_BACK`. ARGV: the delivery tag; the record and the maximum of
#: records, in case the message becomes a dead letter. Returns 1, or 0 if the message is no longer held.
GIVE_BACK: Final = (
    PARTS
    + WHEREABOUTS
    + KEEP_LETTER
    + PUT_BACK
    + """
local wrong = wrong_type(5)
if wrong then return wrong end
local held = redis.call('HGET', KEYS[1], ARGV[1])
if not held then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
local queue, raw = parts(held)
if not put_back(5, KEYS[2], queue, raw, id_in(ARGV[1])) then
  keep_letter(KEYS[3], KEYS[4], ARGV[2], ARGV[3], ARGV[1], queue, raw)
end
return 1
"""
)

#: Postpones one message. KEYS: the holder's in-flight hash, the locations of jobs, the postponed messages. ARGV: the
#: delivery tag, seconds since the epoch. The tag keeps messages with equal bytes distinct. Returns 1, or 0 if the
#: message is no longer held.
POSTPONE: Final = (
    PARTS
    + WHEREABOUTS
    + """
local held = redis.call('HGET', KEYS[1], ARGV[1])
if not held then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[3], ARGV[2], ARGV[1] .. '\\n' .. held)
note(KEYS[2], id_in(ARGV[1]), 'postponed ' .. ARGV[2])
return 1
"""
)

#: Requeues postponed messages that are due, at the front of their queues. KEYS: the postponed messages, then as
#: `GIVE_BACK` from the second key on. ARGV: seconds since the epoch; the record and the maximum of records.
#: One call moves a hundred messages, or about `MAX_MOVED_BYTES`. Returns the number moved.
RESUME: Final = (
    PARTS
    + WHEREABOUTS
    + KEEP_LETTER
    + PUT_BACK
    + """
local wrong = wrong_type(5)
if wrong then return wrong end
local due, bytes = {}, 0
while #due < 100 and bytes < MAX_MOVED_BYTES do
  local first = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', #due, 1)[1]
  if not first then break end
  due[#due + 1], bytes = first, bytes + #first
end
for i = #due, 1, -1 do
  redis.call('ZREM', KEYS[1], due[i])
  local tag, held = parts(due[i])
  local queue, raw = parts(held)
  if not put_back(5, KEYS[2], queue, raw, id_in(tag)) then
    keep_letter(KEYS[3], KEYS[4], ARGV[2], ARGV[3], tag, queue, raw)
  end
end
return #due
""".replace("MAX_MOVED_BYTES", str(MAX_MOVED_BYTES))
)

#: Requeues a worker's messages in chunks, at the front of their queues with the oldest first; the last one removes the
#: worker.
#: KEYS: its in-flight hash, and up to the 13th as `GIVE_BACK`; then its lease, the set of workers, its mark of what ran
#: alone, the suspects. ARGV: its name; 'dead' if its lease has expired, 'gone' if the caller knows that its process has
#: ended, 'leaving' if it requeues its own messages; how many seconds suspects are remembered; the record and the most
#: records; the most messages and bytes of a chunk, which may exceed these bytes by its last message.
#: A dead worker may have been killed by a message that it held: by the one that ran alone, if any, otherwise by any of
#: them. A worker that shuts down has ' draining' as its mark, which matches no job, so its death counts against none.
#: Between two chunks the worker may turn out to live and then keeps the rest; or the caller may die, and another
#: worker continues.
#: Returns how many messages were requeued and how many are left; -1 and 0 if the worker lives.
RECLAIM: Final = (
    JOB_ID
    + PARTS
    + WHEREABOUTS
    + KEEP_LETTER
    + PUT_BACK
    + """
local in_flight, in_hand, records, messages = unpack(KEYS, 1, 4)
local lease, workers, alone, suspects = unpack(KEYS, 14, 17)
local worker, how = ARGV[1], ARGV[2]
if how == 'dead' and redis.call('EXISTS', lease) == 1 then return {-1, 0} end
if how ~= 'leaving' and redis.call('SISMEMBER', workers, worker) == 0 then return {0, 0} end
local wrong = wrong_type(5)
if wrong then return wrong end
local culprit = redis.pcall('GET', alone)
if type(culprit) ~= 'string' then culprit = nil end
local tags = redis.call('HKEYS', in_flight)
table.sort(tags)
redis.call('DEL', lease)
local bytes, left = 0, #tags
while left > 0 and #tags - left < tonumber(ARGV[6]) and bytes < tonumber(ARGV[7]) do
  local tag = tags[left]
  local held = redis.call('HGET', in_flight, tag)
  local queue, raw = parts(held)
  local id, life = job_id(raw)
  local known = indexed(id, life)
  local name = field(id, known)
  redis.call('HDEL', in_flight, tag)
  if not put_back(5, in_hand, queue, raw, known) then
    keep_letter(records, messages, ARGV[4], ARGV[5], tag, queue, raw)
    drop(in_hand, known, worker)
  elseif how ~= 'leaving' and name then
    if not culprit then
      redis.pcall('HINCRBY', suspects, name, 1)
    elseif culprit == name or string.sub(culprit, 1, #name + 1) == name .. ' ' then
      redis.pcall('HINCRBY', suspects, name, 1)
      redis.pcall('HINCRBY', suspects, 'alone ' .. culprit, 1)
    end
    redis.call('EXPIRE', suspects, ARGV[3])
  end
  bytes, left = bytes + #held, left - 1
end
if left == 0 then
  redis.call('DEL', alone)
  redis.call('SREM', workers, worker)
end
return {#tags - left, left}
"""
)

#: Stores a held message as a dead letter. KEYS: the holder's in-flight hash, the locations of jobs, the records, their
#: messages. ARGV: the delivery tag; the record as JSON; the maximum of records; a string that distinguishes letters of
#: one message; 'forget' if the caller does not acknowledge the message afterwards; the holder.
#: Returns 1, or 0 if the message is no longer held or is stored already.
BURY: Final = (
    PARTS
    + WHEREABOUTS
    + KEEP_LETTER
    + """
local held = redis.call('HGET', KEYS[1], ARGV[1])
if not held then return 0 end
if ARGV[5] == 'forget' then
  redis.call('HDEL', KEYS[1], ARGV[1])
  drop(KEYS[2], id_in(ARGV[1]), ARGV[6])
else
  redis.call('HDEL', KEYS[4], '')  -- a write that needs no memory: see `worker.delivery.lua`
end
local queue, raw = parts(held)
return keep_letter(KEYS[3], KEYS[4], ARGV[2], ARGV[3], ARGV[4], queue, raw)
"""
)
