"""Show a bulk run's progress: as a bar on a terminal, otherwise as a line every ten seconds."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final, Self

from producer.cli import output

if TYPE_CHECKING:
    from producer.cli.bulk.output import BulkOutput

#: Often enough to show that the run continues, and only 360 lines an hour.
_LINE_EVERY_S: Final = 10.0


class Progress:
    """Counts the answers of this run and their rate.

    Args:
        total: the number of records in the input, including answered ones; None if unknown.
        done: the number of records answered in earlier runs.
    """

    def __init__(self, total: int | None, *, done: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._total, self._before = total, done
        self._now_done = self._failed = 0
        self._started_s = self._printed_s = time.monotonic()
        self._bar: Bar | None = None
        if sys.stderr.isatty():  # rich also calls a file a terminal if FORCE_COLOR is set
            self._bar = Bar(
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[failed]}", style="red"),
                console=output.notices(),
                transient=True,
            )
            self._task = self._bar.add_task("", total=total, completed=done, rate="", failed="")

    def advance(self, *, failed: bool) -> None:
        """Count one more answered image."""
        self._now_done += 1
        self._failed += failed
        if self._bar is not None:
            self._bar.update(
                self._task,
                advance=1,
                rate=f"{self._rate():.1f} images/s",
                failed=f"{self._failed:,} failed" if self._failed else "",
            )
        elif (now_s := time.monotonic()) - self._printed_s > _LINE_EVERY_S:
            self._printed_s = now_s
            output.notice(self._line())

    def summary(self, answers: BulkOutput) -> None:
        """Print the last line, which counts the outcomes of all records, including those of earlier runs."""
        if self._bar is not None:
            self._bar.stop()
        everything = answers.succeeded + answers.failed
        text = f"{output.counted(everything, 'image')}: {answers.succeeded:,} classified"
        if answers.failed:
            codes = ", ".join(f"{count:,} {code}" for code, count in answers.codes.most_common())
            text += f", {answers.failed:,} failed ({codes})"
        if self._now_done:
            text += f"; {self._now_done:,} in this run, {self._rate():.1f} images/s"
        if answers.retryable:
            text += f"; --retry-failed retries {output.counted(answers.retryable, 'image')}"
        output.notice(f"{text}.")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _rate(self) -> float:
        return self._now_done / max(time.monotonic() - self._started_s, 1e-3)

    def _line(self) -> str:
        done = self._before + self._now_done
        text = f"{done:,}{f' of {self._total:,}' if self._total is not None else ''} done"
        if self._failed:
            text += f", {self._failed:,} failed"
        text += f", {self._rate():.1f} images/s"
        if self._total is not None:
            text += f", about {_duration((self._total - done) / max(self._rate(), 1e-3))} left"
        return text


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
