"""One finding of `nameshot doctor`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        state: ``warning`` means that the subject works now but may fail later.
        advice: what to do; empty if there is nothing to do.
        numbers: the numbers in the text, for programs.
    """

    subject: str
    state: Literal["ok", "warning", "broken"]
    text: str
    advice: str = ""
    numbers: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the finding as ``--json`` prints it, without ``numbers`` if there are none."""
        return {name: value for name, value in asdict(self).items() if name != "numbers" or value is not None}
