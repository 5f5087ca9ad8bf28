"""What the command line says about an error, beside the error's own sentence."""

from __future__ import annotations

import re
from typing import Any

from producer.cli.connection import is_configured
from producer.errors import BrokerUnavailable, JobCancelled, JobExpired, JobFailed, NameshotError


def sentence(error: NameshotError) -> str:
    """The error's own sentence, safe to print, with a hint where the command line knows more than the library."""
    text = printable(str(error))
    if isinstance(error, BrokerUnavailable) and not is_configured():
        return f"{text} Without a Redis of your own, run `nameshot up` in another terminal first."
    return text


def error_to_json(error: NameshotError) -> dict[str, Any]:
    """An error as ``--json`` prints it; codes are those of a failed job, or the state's name."""
    if isinstance(error, JobFailed):
        return {"code": error.code, "message": error.message, "retryable": error.retryable}
    code = {JobCancelled: "cancelled", JobExpired: "expired"}.get(type(error), type(error).__name__)
    return {"code": code, "message": str(error), "retryable": isinstance(error, TimeoutError | ConnectionError)}


def shown_image(image: str) -> str:
    """An image for standard error, which others may read: a file's name, or where a URL leads, which may be signed."""
    scheme, separator, rest = image.partition("://")
    host = re.split("[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    return printable(f"{scheme}://{host}/…" if separator else image)


def printable(text: str) -> str:
    """The text without characters that could steer a terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
