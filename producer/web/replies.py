"""JSON responses, and times in them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response


class Reply(Response):
    """A JSON object, written in a fifth of the time of Python's encoder: a hundred jobs may have 100,000 scores."""

    media_type = "application/json"

    def __init__(
        self,
        content: Mapping[str, Any],
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
    ) -> None:
        super().__init__(to_json(content), status, headers, media_type)


def rfc3339(moment: datetime) -> str:
    """Return a time in RFC 3339, in UTC and with milliseconds."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
