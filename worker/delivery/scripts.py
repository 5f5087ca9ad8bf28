"""The scripts that move messages. Each is atomic: a message always waits, or is postponed, or is held by one worker.

A hash of in-flight messages maps a delivery tag to the queue's name, a line feed, and the bytes of the message as they
were in the queue. Each delivery gets a new tag, so that a worker that lost a message to another one can no longer
acknowledge or requeue it; after a space the tag has the job's id. The same scripts maintain two records by which a
client can tell whether a job still exists (`producer.contract`): the number of messages taken from each queue, and the
location of each taken job's message.
"""

from __future__ import annotations

from typing import Final

from worker.delivery.lua import JOB_ID, KEEP_LETTER, MAX_MOVED_BYTES, PARTS, PUT_BACK, WHEREABOUTS

#: Takes the first waiting message for a worker that has a lease; a worker without one gets no message, since other
#: workers may be requeueing what it holds.
#: KEYS: the queues in the order to try them; in the same order their lists of rung messages
#: (`worker.delivery.doorbell`), which are older than the waiting ones, and their counters; then the worker's lease, its
#: in-flight hash, the suspects, the locations of jobs, the set of workers. ARGV: the beginning of the delivery tag; the
#: size in bytes above which a message is taken but not returned; the number of queues; the worker's name.
#: If a message has more than four times that size, the hash holds only its beginning: no worker reads such a message,
#: and moving it costs Redis time.
#: A worker of an older version requeues a message without decrementing the counter, so the script does not count that
#: message again. It recognises the message by its location, which still names a worker that is no longer listed.
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
    local saved = redis.pcall('HSET', in_flight, tag, KEYS[i] .. '\\n' .. held)
    if type(saved) == 'table' and saved.err then
      -- a message that cannot be recorded must not be taken
      local undone = redis.pcall('RPUSH', list, raw)
      if type(undone) == 'table' and undone.err then redis.call('LPUSH', list, raw) end
      return redis.error_reply(saved.err)
    end
    local holder = known and redis.pcall('HGET', in_hand, known)
    local is_counted = type(holder) == 'string' and not string.find(holder, ' ', 1, true)
      and redis.pcall('SISMEMBER', workers, holder) == 0
    if not is_counted then redis.pcall('INCR', KEYS[2 * queues + i]) end
    save(in_hand, known, ARGV[4])
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

#: Moves the newest rung message back to the front of its queue, where it wakes another worker; older rung messages stay
#: ahead of it. If Redis refuses the move, the message stays rung, and the next worker that takes a message finds it.
#: KEYS: the list of rung messages, the queue.
HAND_ON: Final = (
    PARTS
    + """
local raw = redis.call('LPOP', KEYS[1])
if raw and refusal(redis.pcall('RPUSH', KEYS[2], raw)) then redis.call('LPUSH', KEYS[1], raw) end
"""
)

#: Requeues one message at the front of its queue. KEYS: the holder's in-flight hash, then those of `PUT_BACK`. ARGV:
#: the delivery tag; the record and the maximum number of records, in case the message becomes a dead letter. Returns 1,
#: or 0 if the message is no longer held.
GIVE_BACK: Final = (
    PUT_BACK
    + """
redis.call('HDEL', KEYS[1], '')
local held = redis.call('HGET', KEYS[1], ARGV[1])
if not held then return 0 end
local done, refused = put_back(held, id_in(ARGV[1]), unpack(ARGV))
if not done then return redis.error_reply(refused) end
return redis.call('HDEL', KEYS[1], ARGV[1])
"""
)

#: Postpones one message. KEYS: the holder's in-flight hash, the locations of jobs, the postponed messages. ARGV: the
#: delivery tag; seconds since the epoch, or from now on if the third argument is 'from now'. The tag keeps messages
#: with equal bytes distinct. Returns 1, or 0 if the message is no longer held.
POSTPONE: Final = (
    PARTS
    + WHEREABOUTS
    + """
redis.call('HDEL', KEYS[1], '')
local held = redis.call('HGET', KEYS[1], ARGV[1])
if not held then return 0 end
local until_s = ARGV[3] == 'from now' and redis.call('TIME')[1] + ARGV[2] or ARGV[2]
local kept = redis.pcall('ZADD', KEYS[3], until_s, ARGV[1] .. '\\n' .. held)
if refusal(kept) then return redis.error_reply(refusal(kept) .. ' (' .. KEYS[3] .. ')') end
save(KEYS[2], id_in(ARGV[1]), 'postponed ' .. until_s)
return redis.call('HDEL', KEYS[1], ARGV[1])
"""
)

#: Requeues postponed messages that are due, at the front of their queues. KEYS: the postponed messages, then those of
#: `PUT_BACK`. ARGV: the record and the maximum number of records; how many due messages to skip, since Redis has
#: refused to requeue them.
#: One call moves at most a hundred messages, or about `MAX_MOVED_BYTES`. Returns the number moved, the number that
#: Redis refused to requeue, and the last error or ''.
RESUME: Final = (
    PUT_BACK
    + """
redis.call('ZREM', KEYS[1], '')
local now = redis.call('TIME')
local now_s = string.format('%d.%06d', now[1], now[2])
local due, bytes, moved, why = {}, 0, 0, ''
while #due < 100 and bytes < MAX_MOVED_BYTES do
  local first = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_s, 'LIMIT', ARGV[3] + #due, 1)[1]
  if not first then break end
  due[#due + 1], bytes = first, bytes + #first
end
for i = #due, 1, -1 do
  local tag, held = parts(due[i])
  local done, refused = put_back(held, id_in(tag), tag, ARGV[1], ARGV[2])
  if done then
    redis.call('ZREM', KEYS[1], due[i])
    moved = moved + 1
  else
    why = refused
  end
end
return {moved, #due - moved, why}
""".replace("MAX_MOVED_BYTES", str(MAX_MOVED_BYTES))
)

#: Requeues one chunk of a worker's messages at the front of their queues, the newest one first, so that the oldest ends
#: up in front. The chunk that leaves the worker no message also removes the worker.
#: KEYS: the worker's in-flight hash, then those of `PUT_BACK`; then the worker's lease, the set of workers, the
#: worker's mark, the suspects. ARGV: the worker's name; 'dead' if its lease has expired, 'gone' if the caller knows
#: that its process has ended, 'leaving' if it requeues its own messages; how many seconds the counts of deaths last;
#: the record and the maximum number of records; the maximum number of messages and bytes of a chunk, whose last message
#: may exceed the bytes; how many messages to skip, since Redis has refused to requeue them.
#: A dead worker may have been killed by a message that it held: by the one that ran alone, if any, otherwise by any of
#: them. A worker that shuts down has ' draining' as its mark, which matches no job, so its death counts against none.
#: If the worker renews its lease between two chunks, it keeps the rest. If the caller dies, another worker continues.
#: Returns how many messages were requeued, how many Redis refused to requeue, how many are left for the next chunk, and
#: the last error or ''; -1 and zeros if the worker lives.
RECLAIM: Final = (
    JOB_ID
    + PUT_BACK
    + """
local in_flight, in_hand = KEYS[1], KEYS[2]
local lease, workers, alone, suspects = unpack(KEYS, 14, 17)
local worker, how = ARGV[1], ARGV[2]
if how == 'dead' and redis.call('EXISTS', lease) == 1 then return {-1, 0, 0, ''} end
if how ~= 'leaving' and redis.call('SISMEMBER', workers, worker) == 0 then return {0, 0, 0, ''} end
local culprit = redis.pcall('GET', alone)
if type(culprit) ~= 'string' then culprit = nil end
local tags = redis.call('HKEYS', in_flight)
table.sort(tags)
redis.call('DEL', lease)
redis.call('HDEL', in_flight, '')
local bytes, moved, refusals, why, left = 0, 0, 0, '', #tags - ARGV[8]
while left > 0 and moved + refusals < tonumber(ARGV[6]) and bytes < tonumber(ARGV[7]) do
  local tag = tags[left]
  local held = redis.call('HGET', in_flight, tag)
  local _, raw = parts(held)
  local id, life = job_id(raw)
  local known = indexed(id, life)
  local name = field(id, known)
  local done, refused = put_back(held, known, tag, ARGV[4], ARGV[5])
  if done then
    redis.call('HDEL', in_flight, tag)
    moved = moved + 1
  else
    refusals, why = refusals + 1, refused
  end
  if done == 'buried' then
    drop(in_hand, known, worker)
  elseif done and how ~= 'leaving' and name then
    if not culprit then
      redis.pcall('HINCRBY', suspects, name, 1)
    elseif culprit == name or string.sub(culprit, 1, #name + 1) == name .. ' ' then
      redis.pcall('HINCRBY', suspects, name, 1)
      redis.pcall('HINCRBY', suspects, 'alone ' .. culprit, 1)
    end
    redis.pcall('EXPIRE', suspects, ARGV[3])
  end
  bytes, left = bytes + #held, left - 1
end
if moved == #tags then
  redis.call('DEL', alone)
  redis.call('SREM', workers, worker)
end
return {moved, refusals, left, why}
"""
)

#: Stores a held message as a dead letter. KEYS: the holder's in-flight hash, the locations of jobs, the records, their
#: messages. ARGV: the delivery tag; the record as JSON; the maximum number of records; a string that distinguishes
#: letters of one message; 'forget' if the script must delete the held message; the holder.
#: Returns 1, or 0 if the message is no longer held or is stored already.
BURY: Final = (
    WHEREABOUTS
    + KEEP_LETTER
    + """
redis.call('HDEL', KEYS[1], '')
local held = redis.call('HGET', KEYS[1], ARGV[1])
if not held then return 0 end
local queue, raw = parts(held)
local kept, refused = keep_letter(KEYS[3], KEYS[4], ARGV[2], ARGV[3], ARGV[4], queue, raw)
if refused then return redis.error_reply(refused .. ' (dead letters)') end
if ARGV[5] == 'forget' then
  redis.call('HDEL', KEYS[1], ARGV[1])
  drop(KEYS[2], id_in(ARGV[1]), ARGV[6])
end
return kept and 1 or 0
"""
)
