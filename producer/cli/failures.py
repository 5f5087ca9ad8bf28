"""Format errors for the command line."""

from __future__ import annotations

from typing import Any, Final

from producer.cli.connection import absent_system, is_configured
from producer.contract.image_url import authority_of
from producer.errors import (
    BrokerUnavailable,
    JobCancelled,
    JobExpired,
    JobFailed,
    JobNotFound,
    NameshotError,
    ResultTimeout,
)

#: The errors with which a job that did not succeed ends a wait.
UNSUCCESSFUL: Final = (JobFailed, JobCancelled, JobExpired, JobNotFound)


def sentence(error: NameshotError) -> str:
    """Return the error's message, safe to print; if Redis is unavailable, add advice about `nameshot up`."""
    text = printable(str(error))
    if isinstance(error, BrokerUnavailable):
        if (why := absent_system()) is not None:
            return f"{text} {why[0].upper()}{why[1:]}."
        if not is_configured():
            return f"{text} Without a Redis of your own, run `nameshot up` in another terminal first."
    return text


def because_no_worker(error: ResultTimeout) -> str:
    """Return a clause for a message about a job without an answer; it is empty unless its queue has no worker."""
    return ", because no worker takes jobs from its queue" if error.no_worker else ""


def error_to_json(error: NameshotError) -> dict[str, Any]:
    """Return an error as ``--json`` prints it.

    Its code is a failed job's error code, the state of a cancelled or expired job, or the error's class name.
    """
    if isinstance(error, JobFailed):
        return error.to_dict()
    code = {JobCancelled: "cancelled", JobExpired: "expired"}.get(type(error), type(error).__name__)
    return {"code": code, "message": str(error), "retryable": isinstance(error, TimeoutError | ConnectionError)}


def refusal(reason: str) -> dict[str, Any]:
    """Return the fields that ``--json`` adds if a command did not do its work, or if the user declined it."""
    return {"error": {"code": "refused", "message": reason, "retryable": False}}


def shown_image(image: str) -> str:
    """Return how standard error shows an image: a file by its path, a URL only by its host, since it may be signed."""
    scheme, separator, _ = image.partition("://")
    host = authority_of(image).rpartition("@")[2]
    return printable(f"{scheme}://{host}/…" if separator else image)


def printable(text: str) -> str:
    """Return the text without characters that could control a terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
