"""Decides whether to retry a failed download, and after which pause."""

from __future__ import annotations

import random
import re
import time
from typing import Final

from worker.fetch.dates import http_date_s
from worker.fetch.failures import FetchFailed

#: Three failures within seconds are no hiccup, and another job needs the worker's slot more.
MAX_ATTEMPTS: Final = 3
#: The first pause, doubled for each further attempt, is long enough for a restarted server or a failed-over DNS cache.
FIRST_BACK_OFF_S: Final = 0.25


def pause_before_next_s(failure: FetchFailed, attempts: int, left_s: float) -> float | None:
    """Return the seconds to wait before another attempt; None when there should be none.

    Args:
        failure: the last attempt's failure.
        attempts: attempts so far.
        left_s: seconds left of the download's time.
    """
    if not failure.again or attempts >= MAX_ATTEMPTS:
        return None
    # Half of the pause is random, so that jobs that failed together do not retry together.
    pause_s = FIRST_BACK_OFF_S * 2 ** (attempts - 1) * random.uniform(0.5, 1.0)
    if failure.retry_after_s is not None:
        pause_s = max(pause_s, failure.retry_after_s)
    return pause_s if pause_s < left_s else None


def retry_after_s(header: str | None) -> float | None:
    """Parse ``Retry-After`` into seconds from now, at least 0; None when it is absent or malformed."""
    if header is None:
        return None
    if re.fullmatch("[0-9]{1,9}", header.strip(), re.ASCII):
        return float(header)
    when_s = http_date_s(header)
    return None if when_s is None else max(0.0, when_s - time.time())
