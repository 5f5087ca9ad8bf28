"""Which problems a route may answer, for ``/openapi.json``."""

from __future__ import annotations

from typing import Any

from producer.web.problems import CODES, MEDIA_TYPE
from producer.web.schemas import ProblemObject


def problems(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of responses with these codes, by status."""
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(CODES[code].status, []).append(code)
    schema = {"$ref": f"#/components/schemas/{ProblemObject.__name__}"}
    return {
        status: {
            "description": "; ".join(f"`{code}`: {CODES[code].title}" for code in found),
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status, found in by_status.items()
    }


#: What any route may answer.
EVERYWHERE = ("invalid_request", "cross_origin", "body_too_large", "host_not_served", "internal")
#: What any route that knows its caller may answer.
KEYED = (*EVERYWHERE, "unauthorized", "rate_limited", "unavailable")
