"""The names of a job's arguments for each kind of caller, so that an error names an argument as its caller wrote it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, eq=False, slots=True)
class Spelling:
    """The names of a job's arguments for one kind of caller.

    Attributes:
        nothing: what this caller writes for an argument without a value.
    """

    image: str
    labels: str
    templates: str
    top_k: str
    download_timeout: str
    nothing: str = "None"

    def kind(self, value: object) -> str:
        """Return the name of a value's type; for None, return what the caller writes instead."""
        return self.nothing if value is None else type(value).__name__

    def label(self, position: int) -> str:
        """Return the name of one label, counted from 0."""
        return f"{self.labels}[{position}]"

    def template(self, position: int) -> str:
        """Return the name of one of several templates, counted from 0."""
        return f"{self.templates}[{position}]"


#: The fields of a message.
MESSAGE: Final = Spelling("image", "candidate_labels", "hypothesis_template", "top_k", "timeout", nothing="null")
#: The arguments of `Client.submit`, and those of `Question.checked`.
CALL: Final = Spelling("url", "labels", "hypothesis_template", "top_k", "download_timeout")
QUESTION: Final = Spelling("image", "candidate_labels", "hypothesis_template", "top_k", "download_timeout")
#: The attributes of a `ClassifyJob` and its `Question`.
ATTRIBUTES: Final = Spelling("image", "candidate_labels", "templates", "top_k", "download_timeout")
