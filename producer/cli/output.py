"""Write a command's output: results to stdout, everything else to stderr."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from producer.cli.streams import StreamFailed

if TYPE_CHECKING:
    from rich.console import Console


def console(width: int | None = None) -> Console:
    """Return a console on standard output, with the terminal's colours and, if ``width`` is None, its width."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=False, width=width)


def notices() -> Console:
    """Return a console on standard error, for everything but results."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def notice(text: str) -> None:
    """Print one plain line on standard error."""
    print(text, file=sys.stderr, flush=True)


def counted(number: int, noun: str) -> str:
    """Return a number of things, as in 1 image or 2,000 images."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on its own line, and flush."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def print_queued(ids: Sequence[str], lines: Sequence[str | Mapping[str, Any]]) -> None:
    """Print a line, or a JSON object, for each queued job.

    Raises:
        StreamFailed: standard output cannot be written; the error names the jobs whose lines are missing.
    """
    for number, line in enumerate(lines):
        try:
            if isinstance(line, str):
                print(line, flush=True)
            else:
                print_json(line)
        except StreamFailed as failure:
            left = ids[number:]
            which = "this job is" if len(left) == 1 else "these jobs are"
            reason = f"{failure.strerror}; {which} queued all the same: {' '.join(left)}"
            raise StreamFailed(failure.errno, reason, failure.filename) from None


@contextlib.contextmanager
def waiting(text: str) -> Iterator[None]:
    """Show a spinner during the ``with`` block if standard error is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    with notices().status(text):
        yield


class StartProgress:
    """Prints a line for each finished stage of a start and, on a terminal, shows a spinner for the current stage."""

    def __init__(self) -> None:
        self._console = notices()
        self._status = self._console.status("") if self._console.is_terminal else None
        self._began_s = 0.0
        self._current = ""

    def announce(self, stage: str) -> None:
        """Begin a stage; an empty name means that the start is complete."""
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
