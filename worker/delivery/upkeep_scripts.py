"""The scripts with which workers renew their leases and maintain the broker's database."""

from __future__ import annotations

from typing import Final

from worker.delivery.lua import JOB_ID, MAX_MOVED_BYTES, PARTS, WHEREABOUTS

#: Renews a lease and adds its worker to the set. KEYS: the lease, the set of workers. ARGV: the lease's value, its
#: lifetime in milliseconds, the worker's name. Returns the time by Redis's clock, for `worker.delivery.broker_clock`.
RENEW: Final = """
redis.call('PEXPIRE', KEYS[1], ARGV[2])  -- a write that needs no memory: see `worker.delivery.lua`
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SADD', KEYS[2], ARGV[3])
return redis.call('TIME')
"""

#: Changes a lease's value and keeps its expiry. KEYS: the lease. ARGV: the new value.
UPDATE_LEASE: Final = """
local left_ms = redis.call('PTTL', KEYS[1])
if left_ms > 0 then
  redis.call('PEXPIRE', KEYS[1], left_ms)
  redis.call('SET', KEYS[1], ARGV[1], 'PX', left_ms)
end
"""

#: Sets a key that expires, replacing a value of any type, even in a full Redis. KEYS: the key. ARGV: the value, its
#: lifetime in milliseconds.
SET: Final = """
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
"""

#: Elects one worker for a term. KEYS: the key of the election. ARGV: the worker's name; the term in milliseconds;
#: 'again' if the elected worker may renew its term. Returns 1 for the elected worker, 0 for others. A key without an
#: expiry was not written by a worker, and is replaced.
ELECT: Final = """
local holder = redis.pcall('GET', KEYS[1])
local is_held = type(holder) == 'string' and redis.call('PTTL', KEYS[1]) > 0
if is_held and not (holder == ARGV[1] and ARGV[3] == 'again') then return 0 end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

#: Ends the term of an elected worker. KEYS: the key of the election. ARGV: the worker's name.
RESIGN: Final = """
if redis.pcall('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""

#: Moves messages with a priority, which only plain clients send, to the back of their queue, the highest priority
#: first, if the queue is empty: kombu's own workers, too, take them after all messages without a priority.
#: KEYS: the queue, its list of rung messages, the lists of its priorities. ARGV: the maximum number of messages to
#: move; a call also ends after `MAX_MOVED_BYTES`. Returns the number moved.
MOVE_STEPS: Final = (
    PARTS
    + """
if redis.call('EXISTS', unpack(KEYS, 3)) == 0 or redis.call('EXISTS', KEYS[1], KEYS[2]) > 0 then return 0 end
local moved, bytes = 0, 0
for i = 3, #KEYS do
  while moved < tonumber(ARGV[1]) and bytes < MAX_MOVED_BYTES do
    local raw = redis.pcall('RPOP', KEYS[i])
    if type(raw) ~= 'string' then break end
    local refused = refusal(redis.pcall('LPUSH', KEYS[1], raw))
    if refused then
      redis.call('RPUSH', KEYS[i], raw)
      return redis.error_reply(refused .. ' (queue ' .. KEYS[1] .. ')')
    end
    moved, bytes = moved + 1, bytes + #raw
  end
end
return moved
""".replace("MAX_MOVED_BYTES", str(MAX_MOVED_BYTES))
)

#: Removes the locations of jobs that no longer exist: held by a worker that is not listed, postponed to a time long
#: past, or requeued with a number that its queue's counter has reached. Only a worker of an older version, another
#: program's purge, or a deleted queue can leave such an entry. If a job's recorded holder is not listed, an older
#: worker requeued the job without decrementing the counter. Then the job may still wait although the counter has
#: reached its number, so a flag warns clients not to rely on numbers.
#: KEYS: the locations of jobs, the set of workers, the counters of high, default and bulk, the flag. ARGV: the
#: number of seconds after which the time of a postponed job is long past; the lifetime of the flag in milliseconds;
#: then the id and the recorded location of each job. Returns the number removed.
SWEEP: Final = """
local counters = {high = KEYS[3], default = KEYS[4], bulk = KEYS[5]}
local long_past_s = redis.call('TIME')[1] - ARGV[1]
local removed, is_mixed = 0, false
for i = 3, #ARGV, 2 do
  local id, where = ARGV[i], ARGV[i + 1]
  local until_s = string.match(where, '^postponed ([%d.]+)$')
  local queue, number = string.match(where, '^returned (%a+) (-?%d+)$')
  local is_stale
  if until_s then
    is_stale = tonumber(until_s) < long_past_s
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

#: The scripts that search for messages of forgotten jobs share this code. ``wanted`` maps a message's life to its id. A
#: message matches only if its delivery tag is the life and its header has the id. Only messages that contain a wanted
#: life are parsed: any producer may request this search, and parsing all messages would take ten times as long. One
#: read returns at most eight messages, since messages may be large, and Redis copies all of them at once.
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
local searched, bytes = 0, 0
"""
)

#: Removes the messages of forgotten jobs from one chunk of a list. KEYS: the list, the locations of jobs. ARGV: the
#: index at which to start, where 0 is the newest message; the maximum number of messages and, approximately, bytes to
#: search; a placeholder that equals no message; then the id and the life of each wanted message. Returns the index at
#: which to continue, or -1 at the end of the list.
#: The script replaces each match, by index, with the placeholder, and then removes all placeholders with a single LREM,
#: since each LREM may scan the whole list.
REMOVE_WAITING: Final = (
    _FORGOTTEN
    + """
redis.pcall('HDEL', KEYS[2], '')  -- a write that needs no memory: see `worker.delivery.lua`
local removed, is_end = 0, false
while searched < most and bytes < most_bytes do
  local found = redis.pcall('LRANGE', KEYS[1], begin + searched, begin + searched + 7)
  is_end = #found == 0  -- also if the key is not a list
  if is_end then break end
  for i, raw in ipairs(found) do
    bytes = bytes + #raw
    if is_forgotten(raw) then
      redis.call('LSET', KEYS[1], begin + searched + i - 1, ARGV[4])
      removed = removed + 1
    end
  end
  searched = searched + #found
end
if removed > 0 then redis.call('LREM', KEYS[1], removed, ARGV[4]) end
return is_end and -1 or begin + searched - removed
"""
)

#: Removes the messages of forgotten jobs from one chunk of the postponed ones. KEYS: the postponed messages, the
#: locations of jobs. The arguments and the reply are those of `REMOVE_WAITING`.
REMOVE_POSTPONED: Final = (
    _FORGOTTEN
    + PARTS
    + WHEREABOUTS
    + """
local stays = begin
while searched < most and bytes < most_bytes do
  local found = redis.pcall('ZRANGEBYSCORE', KEYS[1], '-inf', '+inf', 'WITHSCORES', 'LIMIT', stays, 8)
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
  searched = searched + #found / 2
end
return stays
"""
)

#: Returns the oldest requests to forget a job, the newest of them first. Any producer may write to the list, and each
#: search passes the requests to its scripts, so this script removes requests that are longer than any that our clients
#: write. KEYS: the list of requests. ARGV: the maximum number of requests to read; the maximum bytes of one request. A
#: call also ends after `MAX_MOVED_BYTES`.
OLDEST_REQUESTS: Final = """
local found, seen, bytes = {}, 0, 0
while seen < tonumber(ARGV[1]) and bytes < MAX_MOVED_BYTES do
  local request = redis.call('LRANGE', KEYS[1], -1 - #found, -1 - #found)[1]
  if not request then break end
  seen, bytes = seen + 1, bytes + #request
  if #request > tonumber(ARGV[2]) then
    redis.call('LREM', KEYS[1], -1, request)
  else
    table.insert(found, 1, request)
  end
end
return found
""".replace("MAX_MOVED_BYTES", str(MAX_MOVED_BYTES))

#: Removes dead letters of forgotten jobs, except a letter of the job that has claimed the id since then. KEYS: the
#: records, their messages; then for each letter its job's place key. ARGV: for each letter its record as stored,
#: and the letter's id.
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
