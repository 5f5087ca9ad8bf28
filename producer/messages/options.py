"""The optional arguments of a job by name; `Client.submit` and `Client.classify_many` explain each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from producer.contract.names import Queue

Templates = str | Sequence[str]


class QuestionOptions(TypedDict, total=False):
    """The options that shape the answer of a single job and of a bulk message alike."""

    hypothesis_template: Templates
    top_k: int | None
    timeout: float | None


class SubmitOptions(QuestionOptions, total=False):
    """The options of `Client.submit`."""

    job_id: str | None
    expires_in: float | None
    queue: Queue


class BulkOptions(QuestionOptions, total=False):
    """The options of `Client.classify_many`."""

    expires_in: float | None
    queue: Queue
    images_per_message: int
    in_flight: int
    ordered: bool
