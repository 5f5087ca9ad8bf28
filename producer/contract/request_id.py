"""The id of the HTTP request that submitted a job: the API's responses and log have it, and so does a worker's log."""

from __future__ import annotations

import re
from typing import Final

#: The header of a message that holds the id.
REQUEST_ID_HEADER: Final = "nameshot_request_id"
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


def is_request_id(value: object) -> bool:
    """Return whether a value is an id that may be logged as it is."""
    return isinstance(value, str) and _REQUEST_ID.fullmatch(value) is not None
