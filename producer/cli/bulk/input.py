"""Read the images of a bulk run from a text file, CSV, TSV or JSONL of any length, one record at a time."""

from __future__ import annotations

import csv
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TextIO

from producer.errors import InvalidJob

Format = Literal["auto", "text", "csv", "tsv", "jsonl"]

#: The column or key with the image usually has one of these names, which are tried in this order.
IMAGE_NAMES: Final = ("image", "image_url", "url", "uri", "link", "href", "src")
_BY_SUFFIX: Final[dict[str, Format]] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}


@dataclass(frozen=True, slots=True)
class Record:
    """One image of the input.

    Attributes:
        line: the line where the record begins, from 1.
        image: the URL or path from the input; empty if there is none.
        problem: why there is no image, as a clause; empty if there is one.
    """

    line: int
    image: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class BulkInput:
    """The list of images: a file, or standard input (``-``)."""

    name: str
    format: Format = "auto"
    column: str | None = None

    def open(self) -> TextIO:
        """Open the text; invalid UTF-8 affects only its own line. Raise `InvalidJob` if the file cannot be opened."""
        if self.name == "-":
            if hasattr(sys.stdin, "reconfigure"):
                sys.stdin.reconfigure(encoding="utf-8-sig", errors="replace")
            return sys.stdin
        try:
            # The csv module requires newline="", since it splits lines itself.
            return Path(self.name).open(encoding="utf-8-sig", errors="replace", newline="")
        except OSError as error:
            raise InvalidJob(f"{self.name} cannot be read: {error.strerror}.") from None

    def records(self, text: TextIO) -> Iterator[Record]:
        """Yield each image in order, skipping blank lines.

        Raises:
            InvalidJob: a table lacks the column that the user named, or has none that seems to hold the images.
        """
        lines: Iterator[str] = iter(text)
        match self._format():
            case "csv":
                return _table(lines, ",", self.column)
            case "tsv":
                return _table(lines, "\t", self.column)
            case "jsonl":
                return _jsonl(lines, self.column)
            case "text":
                return _plain(lines)
        first = next(lines, "")
        lines = itertools.chain([first], lines)
        return _jsonl(lines, self.column) if first.lstrip().startswith(("{", '"')) else _plain(lines)

    def count(self) -> int | None:
        """Return the number of records, for the progress bar; None if the input can be read only once."""
        if self.name == "-" or not Path(self.name).is_file():
            return None
        with self.open() as text:
            if self._format() in ("csv", "tsv"):
                return sum(1 for _ in self.records(text))
            return sum(1 for line in text if not line.isspace())

    def _format(self) -> Format:
        if self.format != "auto":
            return self.format
        if self.column is not None and self.name == "-":
            return "csv"
        return _BY_SUFFIX.get(Path(self.name).suffix.lower(), "auto")


def _plain(lines: Iterable[str]) -> Iterator[Record]:
    for number, line in enumerate(lines, 1):
        if image := line.strip():
            yield Record(number, image)


def _jsonl(lines: Iterable[str], key: str | None) -> Iterator[Record]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):  # thousands of nested brackets raise RecursionError
            yield Record(number, "", "the line is not JSON")
            continue
        yield _from_json(number, value, key)


def _from_json(number: int, value: Any, key: str | None) -> Record:
    if isinstance(value, dict):
        names = (key,) if key is not None else IMAGE_NAMES
        value = next((value[name] for name in names if name in value), None)
    if isinstance(value, str):
        return Record(number, value.strip())
    return Record(number, "", f"the line has no text under {key or 'image or url'}")


def _table(lines: Iterable[str], delimiter: str, column: str | None) -> Iterator[Record]:
    reader = csv.reader(lines, delimiter=delimiter)
    begins = 1
    position: int | None = None
    try:
        for row in reader:
            line, begins = begins, reader.line_num + 1
            if not any(cell.strip() for cell in row):
                continue
            if position is None:
                position, is_header = _find_column(row, column)
                if is_header:
                    continue
            if position < len(row):
                yield Record(line, row[position].strip())
            else:
                yield Record(line, "", f"the row has {len(row)} columns, and the image's column is {position + 1}")
    except csv.Error as error:
        raise InvalidJob(f"the table cannot be read after line {begins - 1}: {error}.") from None


def _find_column(row: list[str], column: str | None) -> tuple[int, bool]:
    """Return the index of the image's column, and whether this first row is the header."""
    names = [cell.strip() for cell in row]
    looks_like_data = any("://" in cell for cell in names)
    if column is not None:
        if column in names:
            return names.index(column), True
        if column.isdecimal() and int(column) >= 1:
            return int(column) - 1, not looks_like_data
        raise InvalidJob(f"the table has no column {column!r}; its columns are {', '.join(names)[:300]}.")
    lower = [name.lower() for name in names]
    for name in IMAGE_NAMES:
        if name in lower:
            return lower.index(name), True
    if looks_like_data:
        return next(position for position, cell in enumerate(names) if "://" in cell), False
    raise InvalidJob(
        f"no column of the table is called image or url; choose one of {', '.join(names)[:300]} with --column."
    )
