"""Decides whether, and after which pause, the fetcher retries a failed download."""

from __future__ import annotations

import random
import re
import time
from typing import Final

from worker.fetch.dates import http_date_s
from worker.fetch.failures import FetchFailed

#: After three failures within seconds a fourth attempt would probably fail too, and another job can use the place.
MAX_ATTEMPTS: Final = 3
#: After the first pause a restarted server may accept connections again. Each further pause is twice as long.
FIRST_BACK_OFF_S: Final = 0.25


def pause_before_next_s(failure: FetchFailed, attempts: int, left_s: float) -> float | None:
    """Return the seconds to wait before another attempt; None if the fetcher should not try again.

    Args:
        failure: the last attempt's failure.
        attempts: the number of attempts so far.
        left_s: the seconds that are left of the download's time.
    """
    if not failure.again or attempts >= MAX_ATTEMPTS:
        return None
    # Half of the pause is random, so that jobs that failed together do not retry together.
    pause_s = FIRST_BACK_OFF_S * 2 ** (attempts - 1) * random.uniform(0.5, 1.0)
    if failure.retry_after_s is not None:
        pause_s = max(pause_s, failure.retry_after_s)
    return pause_s if pause_s < left_s else None


def retry_after_s(header: str | None) -> float | None:
    """Return the value of ``Retry-After`` in seconds from now, at least 0; None if it is absent or malformed."""
    if header is None:
        return None
    if re.fullmatch("[0-9]{1,9}", header.strip(), re.ASCII):
        return float(header)
    when_s = http_date_s(header)
    return None if when_s is None else max(0.0, when_s - time.time())
