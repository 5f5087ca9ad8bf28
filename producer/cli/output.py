"""Where a command writes: results to stdout, everything else to stderr."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def console() -> Console:
    """Standard output, as wide and colourful as it is."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=False)


def notices() -> Console:
    """Standard error, for what is not the answer."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def notice(text: str) -> None:
    """One plain line on standard error, as it is."""
    print(text, file=sys.stderr, flush=True)


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on a line of its own, at once."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


@contextlib.contextmanager
def waiting(text: str) -> Iterator[None]:
    """Show that something is awaited, to a person who watches; a log file need not know."""
    if not sys.stderr.isatty():
        yield
        return
    with notices().status(text):
        yield


class StartProgress:
    """The stages of a start: a spinner with the current one on a terminal, else one line each."""

    def __init__(self) -> None:
        self._console = notices()
        self._status = self._console.status("") if self._console.is_terminal else None
        self._began_s = 0.0
        self._current = ""

    def announce(self, stage: str) -> None:
        """The stage that begins; an empty name when there is none any more."""
        import time

        now_s = time.monotonic()
        if self._current:
            self._console.print(f"{self._current}: {now_s - self._began_s:.1f} s", style="dim", markup=False)
        self._current, self._began_s = stage, now_s
        if self._status is None:
            return
        if stage:
            self._status.update(f"{stage}…")
            self._status.start()
        else:
            self._status.stop()

    def __enter__(self) -> StartProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()
