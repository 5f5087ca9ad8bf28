"""Write into a message, as Redis queues it, when it was sent and when it expires.

The clocks of the machines that send, hold and run jobs may differ by minutes, so the clock of the broker decides.
"""

from __future__ import annotations

from typing import Final

from producer.contract.names import SENT_AT_HEADER

#: A Lua function, ``dated``, that returns a message of `producer.messages.envelope.UndatedMessage` with both times, of
#: which ``expires`` is in ISO 8601, and the first whole second at which the job has expired, '' if it never does.
#: ``lifetime_us`` is how many microseconds the job may wait; empty if without limit.
#: Redis has no function for dates, so ``date`` counts days from 0000-03-01: then a leap day ends its year, and the
#: lengths of the months repeat every 153 days.
DATED: Final = """
local now = redis.call('TIME')
local function date(seconds)
  local days = math.floor(seconds / 86400) + 719468
  local era, day = math.floor(days / 146097), days % 146097
  local year = math.floor((day - math.floor(day / 1460) + math.floor(day / 36524) - math.floor(day / 146096)) / 365)
  day = day - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local month = math.floor((5 * day + 2) / 153)
  day = day - math.floor((153 * month + 2) / 5) + 1
  month = month < 10 and month + 3 or month - 9
  year = year + 400 * era + (month <= 2 and 1 or 0)
  local second = seconds % 86400
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d', year, month, day,
    math.floor(second / 3600), math.floor(second / 60) % 60, second % 60)
end
local function dated(before, lifetime_us, after)
  local expires, expires_s = 'null', ''
  if lifetime_us ~= '' then
    local us = now[2] + lifetime_us
    expires_s = string.format('%d', now[1] + math.floor(us / 1000000) + 1)
    expires = string.format('"%s.%06d+00:00"', date(now[1] + math.floor(us / 1000000)), us % 1000000)
  end
  local sent = string.format('%d.%06d', now[1], now[2])
  return before .. '"expires":' .. expires .. ',"SENT_AT_HEADER":' .. sent .. after, expires_s
end
""".replace("SENT_AT_HEADER", SENT_AT_HEADER)
