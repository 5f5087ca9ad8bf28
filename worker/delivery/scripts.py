"""The scripts that move messages. Each is atomic: a message is at any moment in a queue or in somebody's hands.

A hash of messages in flight maps a delivery tag to the queue's name, a line feed, and the message as it stood in
the queue, byte by byte. Tags are made anew for each delivery, so that whoever lost a message to another can neither
acknowledge nor return it any more.
"""

from __future__ import annotations

from typing import Final

#: The id in a message's header, or nil: strangers write to the queues.
_JOB_ID: Final = """
local function job_id(raw)
  local readable, message = pcall(cjson.decode, raw)
  if readable and type(message) == 'table' and type(message.headers) == 'table'
      and type(message.headers.id) == 'string' then
    return message.headers.id
  end
end
"""

#: The queue and the message in a record of the messages in flight.
_PARTS: Final = """
local function parts(record)
  local cut = string.find(record, '\\n', 1, true)
  return string.sub(record, 1, cut - 1), string.sub(record, cut + 1)
end
"""

#: Takes the first waiting message, for a worker whose lease stands: what others may reclaim is not added to.
#: KEYS: the queues in the order to look at; for the first of them, in the same order, the lists of what has rung
#: (`worker.delivery.doorbell`), which is older than what waits; then the taker's lease, its messages in flight, the
#: suspects. ARGV: delivery tag; the bytes above which a message is taken and not sent; how many lists of what has rung.
#: Returns {queue, message, deaths, deaths alone, bytes}; nil when no message waits; 0 without a lease.
TAKE: Final = (
    _JOB_ID
    + """
local lease, in_flight, suspects = KEYS[#KEYS - 2], KEYS[#KEYS - 1], KEYS[#KEYS]
if redis.call('EXISTS', lease) == 0 then return 0 end
local rung = tonumber(ARGV[3])
local queues = #KEYS - 3 - rung
if redis.call('EXISTS', unpack(KEYS, 1, queues + rung)) == 0 then return end
for i = 1, queues do
  local raw = i <= rung and redis.call('RPOP', KEYS[queues + i]) or redis.call('RPOP', KEYS[i])
  if raw then
    redis.call('HSET', in_flight, ARGV[1], KEYS[i] .. '\\n' .. raw)
    if #raw > tonumber(ARGV[2]) then return {KEYS[i], '', 0, 0, #raw} end
    if redis.call('EXISTS', suspects) == 1 then
      local id = job_id(raw)
      if id then
        local deaths = redis.call('HMGET', suspects, id, 'alone ' .. id)
        return {KEYS[i], raw, deaths[1] or 0, deaths[2] or 0, #raw}
      end
    end
    return {KEYS[i], raw, 0, 0, #raw}
  end
end
"""
)

#: Returns what has rung longest to its queue, to be taken next. KEYS: the list of what has rung, the queue.
HAND_ON: Final = """
local raw = redis.call('RPOP', KEYS[1])
if raw then redis.call('RPUSH', KEYS[2], raw) end
"""

#: Returns one message to its queue. KEYS: the holder's messages in flight. ARGV: delivery tag; 'next' to be taken
#: next, 'last' to wait behind all others. Returns 1, or 0 when it is not held any more.
GIVE_BACK: Final = (
    _PARTS
    + """
local record = redis.call('HGET', KEYS[1], ARGV[1])
if not record then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call(ARGV[2] == 'next' and 'RPUSH' or 'LPUSH', parts(record))
return 1
"""
)

#: Puts one message aside until its time. KEYS: the holder's messages in flight, the messages put aside. ARGV: delivery
#: tag, seconds since the epoch. The tag keeps messages apart that are the same byte by byte.
POSTPONE: Final = """
local record = redis.call('HGET', KEYS[1], ARGV[1])
if not record then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1] .. '\\n' .. record)
return 1
"""

#: Returns messages whose time has come, to be taken next. KEYS: the messages put aside. ARGV: seconds since the epoch.
#: A hundred at once, so that Redis serves the others too. Returns how many.
RESUME: Final = (
    _PARTS
    + """
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, 100)
for i = #due, 1, -1 do
  local _, record = parts(due[i])
  redis.call('RPUSH', parts(record))
  redis.call('ZREM', KEYS[1], due[i])
end
return #due
"""
)

#: Returns all that a worker holds, to be taken next, and forgets the worker.
#: KEYS: its lease, its messages in flight, the set of workers, what it ran alone, the suspects.
#: ARGV: its name; 'dead' when its lease has ended, 'gone' when the caller knows that its process is no more, 'leaving'
#: when it returns them itself; how many seconds a suspicion lasts.
#: Whoever died may have been killed by what it held: by what it ran alone, if it did, otherwise by any of them.
#: Returns how many messages went back, or -1 when the worker lives.
RECLAIM: Final = (
    _JOB_ID
    + _PARTS
    + """
local lease, in_flight, workers, alone, suspects = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local how = ARGV[2]
if how == 'dead' and redis.call('EXISTS', lease) == 1 then return -1 end
if how ~= 'leaving' and redis.call('SISMEMBER', workers, ARGV[1]) == 0 then return 0 end
local culprit = redis.call('GET', alone)
local messages = redis.call('HGETALL', in_flight)
for i = 2, #messages, 2 do
  local queue, raw = parts(messages[i])
  redis.call('RPUSH', queue, raw)
  if how ~= 'leaving' then
    local id = job_id(raw)
    if id and not culprit then
      redis.call('HINCRBY', suspects, id, 1)
    elseif id and (culprit == id or string.sub(culprit, 1, #id + 1) == id .. ' ') then
      redis.call('HINCRBY', suspects, id, 1)
      redis.call('HINCRBY', suspects, 'alone ' .. culprit, 1)
    end
    redis.call('EXPIRE', suspects, ARGV[3])
  end
end
redis.call('DEL', in_flight, alone, lease)
redis.call('SREM', workers, ARGV[1])
return #messages / 2
"""
)

#: Keeps a message that is held as a dead letter, once: who finds the same poison again says nothing new.
#: KEYS: the holder's messages in flight, the records, their messages. ARGV: delivery tag, the record as JSON, most
#: records, what sets letters of one message apart; 'forget' when nobody acknowledges the message afterwards.
#: Returns 1, or 0 when the message is not held any more or lies there already.
BURY: Final = (
    _PARTS
    + """
local in_flight, records, messages = KEYS[1], KEYS[2], KEYS[3]
local held = redis.call('HGET', in_flight, ARGV[1])
if not held then return 0 end
local queue, raw = parts(held)
local letter = string.sub(redis.sha1hex(ARGV[4] .. ' ' .. raw), 1, 12)
local is_new = redis.call('HEXISTS', messages, letter) == 0
if is_new then
  local record = cjson.decode(ARGV[2])
  record.letter, record.queue, record.bytes = letter, queue, #raw
  redis.call('LPUSH', records, cjson.encode(record))
  -- what is malformed is never replayed, and can be large
  redis.call('HSET', messages, letter, record.code == 'malformed' and '' or raw)
  while redis.call('LLEN', records) > tonumber(ARGV[3]) do
    local readable, oldest = pcall(cjson.decode, redis.call('RPOP', records))
    if readable and type(oldest) == 'table' and oldest.letter then
      redis.call('HDEL', messages, oldest.letter)
    end
  end
end
if ARGV[5] == 'forget' then redis.call('HDEL', in_flight, ARGV[1]) end
return is_new and 1 or 0
"""
)
