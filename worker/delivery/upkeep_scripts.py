"""The scripts by which workers say that they live, and keep the broker's database in order."""

from __future__ import annotations

from typing import Final

from worker.delivery.lua import JOB_ID, PARTS, WHEREABOUTS

#: Renews a lease and lists its worker. KEYS: the lease, the set of workers. ARGV: what the lease says, its life in
#: milliseconds, the worker's name.
RENEW: Final = """
redis.call('PEXPIRE', KEYS[1], ARGV[2])  -- a write that needs no memory: see `worker.delivery.lua`
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SADD', KEYS[2], ARGV[3])
"""

#: Changes what a lease says, not when it ends. KEYS: the lease. ARGV: what it is to say.
UPDATE_LEASE: Final = """
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

#: What the scripts have in common that look for messages of forgotten jobs. ``wanted`` is what to look for, ids by
#: their messages' lives. Only a message that has both where they belong is one, and only one that has such a life
#: anywhere is read: any producer may ask for this, and reading all would take ten times as long. ``looking`` is a count
#: of messages to look at next: few, for a message may be large, and what is asked for at once is copied at once.
_FORGOTTEN: Final = (
    JOB_ID
    + """
local wanted = {}
for i = 5, #ARGV, 2 do wanted[ARGV[i + 1]] = ARGV[i] end
local function is_forgotten(raw)
  local from = 1
  while true do
    local _, to = string.find(raw, '"delivery_tag"', from, true)
    if not to then return false end
    local tag = string.match(raw, '^%s*:%s*"([^"]*)"', to + 1)
    if tag and wanted[tag] then
      local id, life = job_id(raw)
      return type(life) == 'string' and id ~= nil and wanted[life] == id
    end
    from = to + 1
  end
end
local begin, most, most_bytes = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local looked, bytes = 0, 0
local function looking()
  if looked >= most or bytes >= most_bytes then return 0 end
  return math.min(8, most - looked)
end
"""
)

#: Removes the messages of forgotten jobs from a part of a list. KEYS: the list, where jobs are. ARGV: the index from
#: which on to look, the newest being the first; most messages and, about, bytes to look at; what no message is; then
#: the id and the life of each message that is looked for. Returns the index from which on to look next, -1 at the end.
#: What is found is first replaced, each by its index, and then removed at once: LREM looks through the whole list.
REMOVE_WAITING: Final = (
    _FORGOTTEN
    + """
redis.pcall('HDEL', KEYS[2], '')  -- a write that needs no memory: see `worker.delivery.lua`
local removed, is_end = 0, false
local count = looking()
while count > 0 do
  local found = redis.pcall('LRANGE', KEYS[1], begin + looked, begin + looked + count - 1)
  is_end = #found == 0  -- or it is no list
  if is_end then break end
  for i, raw in ipairs(found) do
    bytes = bytes + #raw
    if is_forgotten(raw) then
      redis.call('LSET', KEYS[1], begin + looked + i - 1, ARGV[4])
      removed = removed + 1
    end
  end
  looked = looked + #found
  count = looking()
end
if removed > 0 then redis.call('LREM', KEYS[1], removed, ARGV[4]) end
return is_end and -1 or begin + looked - removed
"""
)

#: Removes the messages of forgotten jobs from a part of those that were put aside. KEYS: these, where jobs are. ARGV
#: and reply: as of `REMOVE_WAITING`.
REMOVE_POSTPONED: Final = (
    _FORGOTTEN
    + PARTS
    + WHEREABOUTS
    + """
local stays = begin
local count = looking()
while count > 0 do
  local found = redis.pcall('ZRANGEBYSCORE', KEYS[1], '-inf', '+inf', 'WITHSCORES', 'LIMIT', stays, count)
  if #found == 0 then return -1 end
  for i = 1, #found, 2 do
    local tag, held = parts(found[i])
    local _, raw = parts(held)
    bytes = bytes + #raw
    if is_forgotten(raw) then
      redis.call('ZREM', KEYS[1], found[i])
      drop(KEYS[2], id_in(tag), 'postponed ' .. found[i + 1])
    else
      stays = stays + 1
    end
  end
  looked = looked + #found / 2
  count = looking()
end
return stays
"""
)

#: Removes dead letters of forgotten jobs, but for those of the message for which the id is claimed by now. KEYS: the
#: records, their messages; then for each letter the place of its id. ARGV: for each its record as it stands, and what
#: it is called.
REMOVE_LETTERS: Final = (
    JOB_ID
    + """
for i = 3, #KEYS do
  local record, letter = ARGV[2 * i - 5], ARGV[2 * i - 4]
  local raw, place = redis.pcall('HGET', KEYS[2], letter), redis.pcall('GET', KEYS[i])
  local _, life = job_id(type(raw) == 'string' and raw or '')
  if not is_ours(life) or type(place) ~= 'string' or string.match(place, ' (%S+)$') ~= life then
    redis.call('HDEL', KEYS[2], letter)
    redis.call('LREM', KEYS[1], 0, record)
  end
end
"""
)
