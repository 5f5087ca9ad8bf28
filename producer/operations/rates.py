"""Count the requests of an API key in a sliding window."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from producer.contract.names import rate_key
from producer.operations.exchanges import Call, Operation

#: Counts a request unless the window is full. The counts of this window and of the one before it are kept; of the
#: latter counts the share that a window which ends now would still cover.
#: KEYS: the counter. ARGV: the window in milliseconds; the limit and the request's cost, in the same unit.
#: Returns 1 if the request is counted; how much is used; and after how many milliseconds such a request will fit.
_HIT: Final = """
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local window, limit, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local start = now_ms - now_ms % window
local kept, current, before = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) (%d+) (%d+)$')
kept, current, before = tonumber(kept) or 0, tonumber(current) or 0, tonumber(before) or 0
if kept == start - window then
  before, current = current, 0
elseif kept ~= start then
  before, current = 0, 0
end
local elapsed = now_ms - start
local used = before * (window - elapsed) / window + current
if used + cost <= limit then
  current = current + cost
  redis.call('SET', KEYS[1], string.format('%.0f %.0f %.0f', start, current, before), 'PX', 2 * window)
  return {1, math.ceil(used + cost), window - elapsed}
end
local wait
if current + cost <= limit then
  wait = window * (1 - (limit - current - cost) / before) - elapsed
else
  wait = window - elapsed + math.max(0, window * (1 - (limit - cost) / current))
end
return {0, math.ceil(used), math.ceil(wait)}
"""


@dataclass(frozen=True, slots=True)
class Hit:
    """Whether a request was counted, and what is left of the window.

    Attributes:
        used: how much of the window is used, in the unit of the cost.
        wait_s: if the request was not counted, after how many seconds it will fit; otherwise when the window ends.
    """

    is_allowed: bool
    used: int
    wait_s: int


def hit(prefix: str, owner: str, *, window_s: int, limit: int, cost: int) -> Operation[Hit]:
    """Count a request of an owner unless its window is full."""
    arguments = (window_s * 1000, limit, cost)
    is_allowed, used, wait_ms = yield Call("results", ("EVAL", _HIT, 1, rate_key(prefix, owner), *arguments))
    return Hit(bool(is_allowed), int(used), max(1, math.ceil(int(wait_ms) / 1000)))
