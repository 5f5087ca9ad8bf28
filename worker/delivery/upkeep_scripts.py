"""The scripts by which workers say that they live, and keep the broker's database in order."""

from __future__ import annotations

from typing import Final

from worker.delivery.lua import JOB_ID

#: Renews a lease and lists its worker. KEYS: the lease, the set of workers. ARGV: what the lease says, its life in
#: milliseconds, the worker's name.
RENEW: Final = """
redis.call('PEXPIRE', KEYS[1], ARGV[2])  -- a write that needs no memory: see `worker.delivery.lua`
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SADD', KEYS[2], ARGV[3])
"""

#: Changes what a lease says, not when it ends. KEYS: the lease. ARGV: what it is to say.
SAY: Final = """
local left_ms = redis.call('PTTL', KEYS[1])
if left_ms > 0 then
  redis.call('PEXPIRE', KEYS[1], left_ms)
  redis.call('SET', KEYS[1], ARGV[1], 'PX', left_ms)
end
"""

#: Sets a key for a time, whatever stood there, though Redis be full. KEYS: the key. ARGV: value, life in milliseconds.
SET: Final = """
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
"""

#: Lets one worker at a time do something. KEYS: what only one of them can hold. ARGV: the worker's name, for how many
#: milliseconds it holds that; whether a worker that holds it may go on. Returns 1 for the one that may. A key that
#: would never end was not written by a worker.
ELECT: Final = """
local holder = redis.pcall('GET', KEYS[1])
local is_held = type(holder) == 'string' and redis.call('PTTL', KEYS[1]) > 0
if is_held and not (holder == ARGV[1] and ARGV[3] == 'again') then return 0 end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

#: Gives up what `ELECT` gave. KEYS: what only one of them can hold. ARGV: the worker's name.
STAND_DOWN: Final = """
if redis.pcall('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""

#: Moves waiting messages of a plain client's priorities to the back of their queue, the highest priority first, once
#: the queue is empty: kombu, too, serves them after all messages without a priority.
#: KEYS: the queue, its list of what has rung, the lists of its priorities. ARGV: most messages; 8 MiB of them end it
#: too, so that Redis serves the others. Returns how many.
MOVE_STEPS: Final = """
if redis.call('EXISTS', unpack(KEYS, 3)) == 0 or redis.call('EXISTS', KEYS[1], KEYS[2]) > 0 then return 0 end
local moved, bytes = 0, 0
for i = 3, #KEYS do
  while moved < tonumber(ARGV[1]) and bytes < 8388608 do
    local raw = redis.pcall('RPOP', KEYS[i])
    if type(raw) ~= 'string' then break end
    redis.call('LPUSH', KEYS[1], raw)
    moved, bytes = moved + 1, bytes + #raw
  end
end
return moved
"""

#: Removes what is noted of jobs that are nowhere any more: held by a worker that is not listed, postponed to a time
#: long past, returned to a queue that has served them since. Only a worker of an older version, another program's
#: purge, or a queue that was deleted can leave such a thing. What a worker is said to hold that is not listed, an older
#: one has put back uncounted: the job may wait although its number has passed, so clients are told to trust no number.
#: KEYS: where jobs are, the set of workers, the counters of high, default and bulk, what tells clients so. ARGV:
#: seconds since the epoch of what counts as long past, for how many milliseconds clients are told so; then for each job
#: its id and what is noted. Returns how many were removed.
SWEEP: Final = """
local counters = {high = KEYS[3], default = KEYS[4], bulk = KEYS[5]}
local removed, is_mixed = 0, false
for i = 3, #ARGV, 2 do
  local id, where = ARGV[i], ARGV[i + 1]
  local until_s = string.match(where, '^postponed ([%d.]+)$')
  local queue, number = string.match(where, '^returned (%a+) (-?%d+)$')
  local is_stale
  if until_s then
    is_stale = tonumber(until_s) < tonumber(ARGV[1])
  elseif queue and counters[queue] then
    local taken = redis.pcall('GET', counters[queue])
    is_stale = (type(taken) == 'string' and tonumber(taken) or 0) >= tonumber(number)
  else
    is_stale = redis.call('SISMEMBER', KEYS[2], where) == 0
  end
  if is_stale and redis.call('HGET', KEYS[1], id) == where then
    redis.call('HDEL', KEYS[1], id)
    removed = removed + 1
    is_mixed = is_mixed or not (until_s or queue)
  end
end
if is_mixed then redis.call('SET', KEYS[6], 1, 'PX', ARGV[2]) end
return removed
"""

#: Removes the messages of a forgotten job from a part of a list. KEYS: the list. ARGV: first and last index, the job's
#: id, its message's life. Only a message that has them where they belong is removed, and only one that has them
#: anywhere is read: any producer may ask for this. Returns how many were removed.
REMOVE_WAITING: Final = (
    JOB_ID
    + """
local removed = 0
for _, raw in ipairs(redis.call('LRANGE', KEYS[1], ARGV[1], ARGV[2])) do
  if string.find(raw, ARGV[3], 1, true) and string.find(raw, ARGV[4], 1, true) then
    local id, life = job_id(raw)
    if id == ARGV[3] and life == ARGV[4] then removed = removed + redis.call('LREM', KEYS[1], -1, raw) end
  end
end
return removed
"""
)

#: Removes one dead letter. KEYS: the records, their messages. ARGV: the record as it stands, the letter.
REMOVE_LETTER: Final = """
redis.call('LREM', KEYS[1], 0, ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[2])
"""
