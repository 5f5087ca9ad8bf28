"""Logging for people or as JSON, one event per line, without URLs' paths and queries.

Libraries log URLs (urllib3's request line, requests' exceptions) and message bodies (Celery's decode errors). Their
loggers stay at WARNING, and every line is redacted before it is written.
"""

from __future__ import annotations

import json
import logging
import re
from traceback import extract_tb
from typing import Final

#: INFO and DEBUG lines of these loggers hold request lines, message bodies or a second line per job.
QUIET: Final = (
    "urllib3",
    "requests",
    "PIL",
    "celery.pool",
    "celery.worker.strategy",
    "celery.worker.consumer.connection",  # names our transport's class; `worker.lifecycle` names the broker
    "kombu",
    "httpx",
    "httpcore",
)
#: These loggers' warnings come with a traceback, about events that the worker logs in one line.
VERBOSE: Final = ("celery.app.trace", "celery.backends.base")

#: A URL is matched up to the next space, since a path may hold a quotation mark.
_URL: Final = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]*://)(?:[^\s/?#]*@)?([^\s/?#'\"<>\\]*)\S*")
_TARGET: Final = re.compile(r"(with url: |\"(?:GET|HEAD|POST) )\S+")
#: The worker's own lines are shorter; Celery logs up to 1,024 characters of a message that it cannot decode.
_MAX_CHARACTERS: Final = 2_000


def redact(text: str) -> str:
    """Shorten each URL in a text to its scheme and host."""
    text = _URL.sub(r"\1\2/…", text)
    return _TARGET.sub(r"\1…", text)[:_MAX_CHARACTERS]


class HumanFormatter(logging.Formatter):
    """Formats lines such as ``12:34:56 INFO    worker.jobs.tasks  job … : owl 0.9997``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s  %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, and an exception's lines below it, all redacted."""
        return redact(super().format(record))


class JsonFormatter(logging.Formatter):
    """Formats one JSON object per line: ``time`` (seconds since the epoch), ``level``, ``logger``, ``message``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON, every text redacted."""
        line = {
            "time": round(record.created, 3),
            "level": record.levelname,
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        if record.exc_info:
            line["exception"] = redact(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def configure(level: str, style: str) -> None:
    """Send every log line of this process to stderr in one form.

    Args:
        level: the least severe level of the worker's own lines.
        style: ``human`` or ``json``.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if style == "json" else HumanFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level]))
    for name in VERBOSE:
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.captureWarnings(True)


def place_of(error: BaseException) -> str:
    """Return the file and line of an error, for log lines: the error's own text might quote untrusted input."""
    if trace := extract_tb(error.__traceback__, limit=-1):
        return f"{trace[0].filename}:{trace[0].lineno}"
    # Removed by `worker.runtime.tracebacks`, which notes the place.
    return next(reversed(getattr(error, "__notes__", [])), "an unknown place")
