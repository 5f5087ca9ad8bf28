"""The ids that a request names."""

from __future__ import annotations

from typing import Final

from producer.messages.submission import CLAIMED_ID
from producer.web.problems import Problem

MAX_IDS: Final = 100


def check_id(job_id: str) -> None:
    """Raise a `Problem` for an id that no job of the API can have."""
    if not CLAIMED_ID.fullmatch(job_id):
        raise Problem("job_not_found")


def check_count(count: int, name: str) -> None:
    """Raise a `Problem` unless a request names 1 to `MAX_IDS` ids."""
    if not 1 <= count <= MAX_IDS:
        raise Problem("too_many_ids", f"ask for 1 to {MAX_IDS} jobs by {name}=…, not for {count:,}.")
