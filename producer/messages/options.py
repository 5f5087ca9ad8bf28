"""The optional arguments of a job by name; `Client.submit` and `Client.classify_many` explain each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypedDict
from uuid import UUID

from producer.contract.names import Queue
from producer.errors import InvalidJob

Templates = str | Sequence[str]
#: A web app's own ids are often numbers or UUIDs; the job's id is their text.
JobId = str | int | UUID


class QuestionOptions(TypedDict, total=False):
    """The options that single jobs and bulk messages share."""

    hypothesis_template: Templates
    top_k: int | None
    download_timeout: float | None


class SubmitOptions(QuestionOptions, total=False):
    """The options of `Client.submit`."""

    job_id: JobId | None
    expires_in: float | None
    retries: int
    queue: Queue


class BulkOptions(QuestionOptions, total=False):
    """The options of `Client.classify_many`."""

    expires_in: float | None
    queue: Queue
    images_per_message: int
    in_flight: int
    ordered: bool


_QUESTION_OPTIONS: Final = frozenset(QuestionOptions.__annotations__)


def refuse_unknown(call: str, options: Mapping[str, object]) -> None:
    """Raise `InvalidJob` for ``timeout``, or Python's own `TypeError` for any other option that a question lacks."""
    if options.keys() <= _QUESTION_OPTIONS:
        return
    refuse_timeout(options)
    unknown = next(name for name in options if name not in _QUESTION_OPTIONS)
    raise TypeError(f"{call}() got an unexpected keyword argument {unknown!r}")


def refuse_timeout(options: Mapping[str, object]) -> None:
    """Raise `InvalidJob` for ``timeout``, by which the caller may mean the download's limit or the time to wait."""
    if "timeout" in options:
        raise InvalidJob(
            "timeout is the time to wait for an answer, and this call does not wait; "
            "to limit the image's download, give download_timeout."
        )
