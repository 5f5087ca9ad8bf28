"""One thing the doctor found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was looked at.

    Attributes:
        state: ``warning`` is what works now and may hurt later.
        advice: what to do; empty where nothing needs doing.
        numbers: what the text says, for programs.
    """

    subject: str
    state: Literal["ok", "warning", "broken"]
    text: str
    advice: str = ""
    numbers: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The finding as ``--json`` prints it; with numbers only where it has some."""
        return {name: value for name, value in asdict(self).items() if name != "numbers" or value is not None}
