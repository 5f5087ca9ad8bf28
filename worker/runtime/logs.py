"""Logging as text or JSON, one event per line, without the paths and queries of URLs.

Libraries log URLs (urllib3 its request lines, requests its exceptions) and message bodies (Celery its decode errors).
Their loggers therefore stay at WARNING, and the formatters redact every line.
"""

from __future__ import annotations

import json
import logging
import re
from traceback import extract_tb
from typing import Any, Final

from worker.runtime.output import Output, keep_output_from_blocking

#: These loggers' INFO and DEBUG lines hold request lines or message bodies, or add a second line per job.
QUIET: Final = (
    "urllib3",
    "requests",
    "PIL",
    "celery.pool",
    "celery.worker.strategy",
    "celery.worker.consumer.connection",  # logs our transport's class; `worker.lifecycle` logs the broker's URL
    "kombu",
    "httpx",
    "httpcore",
)
#: These loggers' warnings hold tracebacks about events for which the worker logs one line.
VERBOSE: Final = ("celery.app.trace", "celery.backends.base")

#: The pattern matches a URL up to the next space, because a path may hold a quotation mark.
_URL: Final = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]*://)(?:[^\s/?#]*@)?([^\s/?#'\"<>\\]*)\S*")
#: An upload's token, which the pattern above does not match, because it has no slashes.
_UPLOAD: Final = re.compile(r"\b(upload:)\S+", re.IGNORECASE)
_TARGET: Final = re.compile(r"(with url: |\"(?:GET|HEAD|POST) )\S+")
#: Longer lines are truncated. The worker's own lines are shorter; Celery logs up to 1,024 characters of a message that
#: it cannot decode.
_MAX_CHARACTERS: Final = 2_000
_LOST_LINES: Final = "%d lines of this log are lost: standard error could not be written"


def redact(text: str) -> str:
    """Return the text with each URL shortened to its scheme and host, no token, and at most `_MAX_CHARACTERS`."""
    text = _UPLOAD.sub(r"\1…", _URL.sub(r"\1\2/…", text))
    return _TARGET.sub(r"\1…", text)[:_MAX_CHARACTERS]


class HumanFormatter(logging.Formatter):
    """Formats lines such as ``12:34:56 INFO    worker.jobs.tasks  job … : owl 0.9997``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s  %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one redacted line, followed by the exception's redacted lines, if any."""
        return redact(super().format(record))


class JsonFormatter(logging.Formatter):
    """Formats one JSON object per line: ``time`` (seconds since the epoch), ``level``, ``logger``, ``message``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON, with a redacted message and exception."""
        line = {
            "time": round(record.created, 3),
            "level": record.levelname,
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        if record.exc_info:
            line["exception"] = redact(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


class _Handler(logging.StreamHandler[Any]):
    """Writes the lines to standard error, and reports how many it could not write."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        self._report_losses()
        super().emit(record)

    def close(self) -> None:
        self._report_losses()
        super().close()

    def _report_losses(self) -> None:
        if not (self._output.lost_lines and self._output.has_room):
            return
        lost_lines, self._output.lost_lines = self._output.lost_lines, 0
        super().emit(
            logging.LogRecord(__name__, logging.WARNING, __file__, 0, _LOST_LINES, (lost_lines,), exc_info=None)
        )


def configure(level: str, style: str) -> None:
    """Have this process write all log lines to stderr in one style, without waiting long if no program reads them.

    Args:
        level: the lowest level of log lines to write; libraries' loggers may have a higher one.
        style: ``human`` or ``json``.
    """
    handler = _Handler(keep_output_from_blocking())
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
    """Return the file and line of an error for log lines, because the error's text may quote untrusted input."""
    if trace := extract_tb(error.__traceback__, limit=-1):
        return f"{trace[0].filename}:{trace[0].lineno}"
    # If `worker.runtime.tracebacks` has removed the traceback, the error's last note holds the file and line.
    return next(reversed(getattr(error, "__notes__", [])), "an unknown place")
