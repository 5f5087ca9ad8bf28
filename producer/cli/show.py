"""Print results in a terminal."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from producer.cli import output
from producer.cli.failures import printable

if TYPE_CHECKING:
    from rich.console import Console

    from producer.cli.thumbnail import Thumbnail
    from producer.contract.result import Result, Timings

#: Character cells of a 100 % bar, which fits into 80 columns next to a label of ordinary length.
BAR_CELLS: Final = 32
#: A table has at most this many rows, enough for a person to read; --json prints every label.
MAX_ROWS: Final = 15
#: Cells between a picture and the text beside it.
GAP: Final = 2
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"


def print_result(console: Console, title: str, result: Result, picture: Thumbnail | None = None) -> None:
    """Print a title, the ranking as a table with bars, and the timings, to the right of the picture if there is one."""
    if picture is None:
        _print_text(console, title, result, soft_wrap=True)
        return
    narrow = output.console(width=console.width - picture.columns - GAP)
    with narrow.capture() as capture:
        _print_text(narrow, title, result, soft_wrap=False)
    lines = capture.get().rstrip("\n").split("\n")
    # Print empty lines, draw at the first of them, and return there, because terminals differ in where they leave the
    # cursor after a picture.
    drawn = "\n" * picture.rows + f"\x1b[{picture.rows}A\x1b7{picture.drawing}\x1b8"
    text = "".join(f"\r\x1b[{picture.columns + GAP}C{line}\n" for line in lines)
    console.file.write(drawn + text + "\n" * (1 + max(0, picture.rows - len(lines))))
    console.file.flush()


def _print_text(console: Console, title: str, result: Result, *, soft_wrap: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    console.print(Text(printable(title), style="bold"))
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=36)
    table.add_column(no_wrap=True, width=BAR_CELLS)
    table.add_column(no_wrap=True, justify="right")
    for place, score in enumerate(result.ranking[:MAX_ROWS]):
        style = "bold green" if place == 0 else "cyan"
        table.add_row(
            Text("  " + printable(score.label), style="bold" if place == 0 else ""),
            Text(bar(score.score, unicode=console.encoding.lower().startswith("utf")), style=style),
            Text(percent(score.score), style="bold" if place == 0 else ""),
        )
    console.print(table)
    if len(result.ranking) > MAX_ROWS:
        console.print(f"  … and {len(result.ranking) - MAX_ROWS:,} more (--json prints all)", style="dim")
    how = f"batch of {result.batch_size}" if result.batch_size else "known picture"
    console.print(f"  {timings(result.timings_ms)} · {how}", style="dim", markup=False, soft_wrap=soft_wrap)
    console.print()


def bar(score: float, *, unicode: bool, cells: int = BAR_CELLS) -> str:
    """Return a score from 0 to 1 as a bar, exact to an eighth of a cell on a Unicode terminal."""
    if not unicode:
        return "#" * round(score * cells)
    full, rest = divmod(round(score * cells * 8), 8)
    return "█" * full + (_EIGHTHS[rest] if rest else "")


def percent(score: float) -> str:
    """Return a score as a percentage; a score above 0 is never shown as 0."""
    return "<0.1 %" if 0 < score < 0.0005 else f"{100 * score:.1f} %"


def timings(timings_ms: Timings) -> str:
    """Return the names of a job's stages, in order, each with its time in milliseconds."""
    # A single measurement is accurate to two or three digits at most.
    texts = (
        f"{name} {ms:,.0f}" if ms >= 10 else f"{name} {ms:.1f}"
        for name, ms in asdict(timings_ms).items()
        if ms is not None
    )
    return f"ms: {' · '.join(texts)}"
