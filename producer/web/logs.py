"""The front's log on standard error, as text or as JSON like a worker's, one event per line.

An exception's text may quote a request, so a line has only its type and where it was raised.
"""

from __future__ import annotations

import json
import logging
from traceback import extract_tb
from types import TracebackType
from typing import Any, Literal

#: The server's lines of every start and end; those of failures remain.
_QUIET = ("uvicorn.error",)


def place_of(error: BaseException, frames: int = 6) -> str:
    """Return the type of an exception and the last lines of code that it passed, without its text."""
    places = (
        f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in extract_tb(error.__traceback__)[-frames:]
    )
    return f"{type(error).__name__} at {' '.join(places)}"


class _Lines(logging.Formatter):
    """Formats exceptions as `place_of` does."""

    def formatException(  # noqa: N802 - the name of logging's method
        self, ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
    ) -> str:
        return place_of(ei[1]) if ei[1] is not None else ""


class _JsonLines(_Lines):
    """Formats one JSON object per line: ``time`` (seconds since the epoch), ``level``, ``logger``, ``message``."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": round(record.created, 3),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def set_up_logging(level: str, form: Literal["human", "json"]) -> None:
    """Log to standard error from this level on."""
    handler = logging.StreamHandler()
    human = _Lines("%(asctime)s %(levelname)-7s %(name)s  %(message)s", "%H:%M:%S")
    handler.setFormatter(_JsonLines() if form == "json" else human)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
