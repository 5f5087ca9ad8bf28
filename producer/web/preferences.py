"""What a caller prefers (RFC 7240): how long to wait for an answer; and which state it has already (ETag)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request

_WAIT: Final = re.compile(r'wait\s*=\s*(?:(\d{1,9})|"(\d{1,9})")', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Preference:
    """How long to wait.

    Attributes:
        applied: the value of the header Preference-Applied; empty if there was no preference.
    """

    wait_s: int = 0
    applied: str = ""

    @classmethod
    def of(cls, request: Request, longest_s: int) -> Preference:
        """Read the headers; what cannot be parsed is ignored."""
        parts = [
            part.partition(";")[0].strip() for value in request.headers.getlist("prefer") for part in value.split(",")
        ]
        if any(part.lower() == "respond-async" for part in parts):
            return cls(0, "respond-async")
        for part in parts:
            if found := _WAIT.fullmatch(part):
                wait_s = min(int(found[1] or found[2]), longest_s)
                return cls(wait_s, f"wait={wait_s}")
        return cls()

    @property
    def headers(self) -> dict[str, str]:
        """The header that says what was applied."""
        return {"Preference-Applied": self.applied} if self.applied else {}


def has_already(request: Request, etag: str) -> bool:
    """Return whether the caller has this state of a job (If-None-Match)."""
    tags = [tag.strip() for value in request.headers.getlist("if-none-match") for tag in value.split(",")]
    return "*" in tags or etag in {tag.removeprefix("W/") for tag in tags}
