"""One thing the doctor found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was looked at.

    Attributes:
        state: ``warning`` is what works now and may hurt later.
        advice: what to do; empty where nothing needs doing.
    """

    subject: str
    state: Literal["ok", "warning", "broken"]
    text: str
    advice: str = ""

    def to_json(self) -> dict[str, Any]:
        """The finding as ``--json`` prints it."""
        return asdict(self)
