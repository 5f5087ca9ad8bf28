"""Pieces of Lua that several scripts share.

Redis rolls nothing back: the writes of a script that fails halfway remain. A key of a wrong type or a missing
permission can make any write fail. So a script that moves a message copies it first, by ``pcall``, and deletes the
original only once Redis has accepted the copy.

At ``maxmemory``, Redis refuses a script's first write if that write might need memory, but refuses no later write. So
each script begins with a write that needs none (``DEL``, ``HDEL``, ``RPOP``, ``PEXPIRE``), and workers can empty a full
Redis. Even a first write that deletes nothing fails if the script could not delete the original later, so the script
copies nothing then.
"""

from __future__ import annotations

from typing import Final

from producer.contract.strict_json import MAX_PARTS
from worker.delivery.envelope import MAX_MESSAGE_BYTES

#: One call of a script stops moving messages at this many bytes, the size of two messages as large as workers read, so
#: that Redis also serves other clients.
MAX_MOVED_BYTES: Final = 2 * MAX_MESSAGE_BYTES
#: The scripts replace lone surrogates only in messages up to this size, since that takes Redis 20 ms per megabyte.
MAX_REPAIRED_BYTES: Final = 1024 * 1024
#: An id of `worker.jobs.messages.MAX_ID_CHARACTERS`, 512, has at most four bytes of UTF-8 per character.
MAX_ID_BYTES: Final = 2_048

#: ``job_id`` returns the id in a message's header and the message's life, which is the delivery tag that the sender
#: chose; or nil. Any producer may write to the queues, and Redis serves no other client while it parses a message. So
#: ``job_id`` cuts long strings without escapes, such as a base64 body, out of a large message, and parses only what
#: then has at most `MAX_MESSAGE_BYTES` and at most `MAX_PARTS` commas and opening brackets, counted anywhere. A worker
#: runs no message whose id ``job_id`` cannot read. cjson fails on lone surrogates, which workers ignore in members that
#: they skip; ``job_id`` replaces them, since the deaths that such a job causes must be counted too.
#: ``indexed`` returns an id that our clients could have chosen, followed by the life if there is one, or nil. The
#: scripts record the locations of only these jobs, since other clients cannot query them. ``field`` returns an id as it
#: appears in hash fields and marks that consist of several words, as `worker.delivery.names.field_of` does; nil if no
#: worker accepts the id.
JOB_ID: Final = (
    r"""
local function to_read(raw)
  if #raw > MAX_MESSAGE_BYTES then
    if #raw > 4 * MAX_MESSAGE_BYTES then return end
    local kept, from, at = {}, 1, string.find(raw, '"', 1, true)
    for _ = 1, MAX_PARTS do
      local to = at and string.find(raw, '"', at + 1, true)
      if not to then break end
      if to - at > 65536 and not string.find(string.sub(raw, at, to), '\\', 1, true) then
        kept[#kept + 1] = string.sub(raw, from, at)
        from = to
      end
      at = to
    end
    raw = table.concat(kept) .. string.sub(raw, from)
    if #raw > MAX_MESSAGE_BYTES then return end
  end
  local parts = 0
  for _, mark in ipairs({',', '[', '{'}) do
    local at = string.find(raw, mark, 1, true)
    while at do
      parts = parts + 1
      if parts > MAX_PARTS then return end
      at = string.find(raw, mark, at + 1, true)
    end
  end
  return raw
end
local function job_id(raw)
  if #raw > MAX_PARTS then raw = to_read(raw) end
  local readable, message = pcall(cjson.decode, raw)
  if not readable and raw and #raw <= MAX_REPAIRED_BYTES then
    readable, message = pcall(cjson.decode, (string.gsub(raw, '\\u[dD][89a-fA-F]%x%x', '\\ufffd')))
  end
  if readable and type(message) == 'table' and type(message.headers) == 'table'
      and type(message.headers.id) == 'string' then
    local properties = type(message.properties) == 'table' and message.properties or {}
    return message.headers.id, properties.delivery_tag
  end
end
local function field(id, known)
  if known then return id end
  if id and #id <= MAX_ID_BYTES and not string.find(id, '%c') then return (string.gsub(id, ' ', '\n')) end
end
local function is_ours(text)
  return type(text) == 'string' and #text <= 128 and string.find(text, '^[%w_-]+$')
end
local function indexed(id, life)
  if is_ours(id) then return is_ours(life) and id .. ' ' .. life or id end
end
""".replace("MAX_PARTS", str(MAX_PARTS))
    .replace("MAX_MESSAGE_BYTES", str(MAX_MESSAGE_BYTES))
    .replace("MAX_REPAIRED_BYTES", str(MAX_REPAIRED_BYTES))
    .replace("MAX_ID_BYTES", str(MAX_ID_BYTES))
)

#: ``parts`` splits an in-flight record into queue and message; ``id_in`` returns the id, and the life after it, from a
#: delivery tag; ``refusal`` returns the error in a reply of ``pcall``, or nil.
PARTS: Final = """
local function parts(record)
  local cut = string.find(record, '\\n', 1, true) or 0
  return string.sub(record, 1, cut - 1), string.sub(record, cut + 1)
end
local function id_in(tag)
  return string.match(tag, ' (.+)$')
end
local function refusal(reply)
  return type(reply) == 'table' and reply.err or nil
end
"""

#: ``save`` records the location of a job's message; ``drop`` deletes that record if it still has the expected value.
#: Both use two fields: the job's id, which clients usually query, and the id with the life, because an id that was
#: freed and sent again has two messages for a moment, and the first one's location must not hide the second one's.
WHEREABOUTS: Final = """
local function fields(known)
  return {known, known and string.match(known, '^(%S+) ')}
end
local function save(in_hand, known, where)
  for _, field in ipairs(fields(known)) do redis.pcall('HSET', in_hand, field, where) end
end
local function drop(in_hand, known, where)
  for _, field in ipairs(fields(known)) do
    if redis.pcall('HGET', in_hand, field) == where then redis.pcall('HDEL', in_hand, field) end
  end
end
"""

#: ``keep_letter`` stores a dead letter unless it is stored already. It returns whether the letter is new; or nil and
#: the error if Redis refuses it, and then nothing is stored. ``apart`` distinguishes several letters of one message.
#: The message of a malformed letter is not stored, since it is never replayed and can be large. ``json`` gives the
#: message's size if ``raw`` is only its beginning. Above ``most`` letters, the function examines the oldest ones, at
#: most a hundred per call: it makes an unanswerable job's letter the newest one, since the letter is all that is left
#: of the job, and removes any other letter.
KEEP_LETTER: Final = (
    PARTS
    + """
local function keep_letter(records, messages, json, most, apart, queue, raw)
  local letter = string.sub(redis.sha1hex(apart .. ' ' .. string.sub(raw, 1, MAX_MESSAGE_BYTES)), 1, 12)
  local known = redis.pcall('HEXISTS', messages, letter)
  if refusal(known) then return nil, refusal(known) end
  if known == 1 then return false end
  local record = cjson.decode(json)
  record.letter, record.queue, record.bytes = letter, queue, record.bytes or #raw
  local kept = redis.pcall('HSET', messages, letter, record.code == 'malformed' and '' or raw)
  if refusal(kept) then return nil, refusal(kept) end
  local listed = redis.pcall('LPUSH', records, cjson.encode(record))
  if refusal(listed) then
    redis.call('HDEL', messages, letter)
    return nil, refusal(listed)
  end
  for _ = 1, 100 do
    if (tonumber(redis.pcall('LLEN', records)) or 0) <= tonumber(most) then break end
    local oldest = redis.pcall('RPOP', records)
    if type(oldest) ~= 'string' then break end
    local readable, old = pcall(cjson.decode, oldest)
    if readable and type(old) == 'table' and old.code == 'unanswerable' then
      redis.call('LPUSH', records, oldest)
    elseif readable and type(old) == 'table' and old.letter then
      redis.call('HDEL', messages, old.letter)
    end
  end
  return true
end
""".replace("MAX_MESSAGE_BYTES", str(MAX_MESSAGE_BYTES))
)

#: ``put_back`` copies a held message to the front of its queue, and records the number that the message then has there.
#: If an older worker recorded the list of a priority, the message goes to the queue itself; if another program recorded
#: some other list, the message becomes a dead letter. ``put_back`` returns 'requeued' or 'buried', and its caller then
#: deletes the original; if Redis refuses the copy, it returns nil and the error, and the caller keeps the original.
#: ``put_back`` uses the second to the 13th key of its script: the locations of jobs, the records of dead letters, their
#: messages; then the three queues, their lists of rung messages, their counters, each in the same order. ``json`` and
#: ``most`` are the record and the maximum number of records, in case the message becomes a dead letter.
PUT_BACK: Final = (
    WHEREABOUTS
    + KEEP_LETTER
    + """
local function put_back(held, known, tag, json, most)
  local queue, raw = parts(held)
  local name = string.match(queue, '^(.-)\\6\\22%d$') or string.match(queue, '^(.-):%d$') or queue
  for i = 5, 7 do
    if KEYS[i] == name then
      local pushed = redis.pcall('RPUSH', name, raw)
      if refusal(pushed) then return nil, refusal(pushed) .. ' (queue ' .. name .. ')' end
      local taken = tonumber(redis.pcall('DECR', KEYS[i + 6])) or -1
      local rung = tonumber(redis.pcall('LLEN', KEYS[i + 3])) or 0
      save(KEYS[2], known, 'returned ' .. string.match(name, '[^.]+$') .. ' ' .. string.format('%d', taken + 1 + rung))
      return 'requeued'
    end
  end
  local kept, refused = keep_letter(KEYS[3], KEYS[4], json, most, tag, queue, raw)
  if refused then return nil, refused .. ' (dead letters)' end
  return 'buried'
end
"""
)
