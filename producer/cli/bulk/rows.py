"""Read the images of a bulk run from lines of text: a plain list, JSONL, or a table such as CSV."""

from __future__ import annotations

import csv
import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from producer.cli.output import counted
from producer.errors import InvalidJob, UsageError

Format = Literal["auto", "text", "csv", "tsv", "jsonl", "parquet"]

#: The column or key with the image usually has one of these names, which are tried in this order.
IMAGE_NAMES: Final = ("image", "image_url", "url", "uri", "link", "href", "src")
#: Endings of the names of pictures that a worker decodes.
ENDINGS: Final = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".avif", ".heic", ".heif"))
#: The column or key whose value the output repeats.
ID_NAME: Final = "id"
#: The delimiters of tables that are called CSV, the most usual one first.
_DELIMITERS: Final = (",", ";", "\t")
#: The characters to which Python decodes bytes that are not UTF-8 (``errors="surrogateescape"``).
_NOT_UTF_8: Final = re.compile("[\udc80-\udcff]")

Id = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Record:
    """One image of the input.

    Attributes:
        line: the line where the record begins, or the row of a Parquet file, from 1.
        image: the URL or path from the input; empty if there is none.
        problem: why the image cannot be sent, as a clause; empty if it can.
        id: what the input calls the image; None if it has no id.
    """

    line: int
    image: str
    problem: str = ""
    id: Id = None


@dataclass(frozen=True, slots=True)
class Columns:
    """The indices of a table's columns with the image and its id, and whether the first row is the header."""

    image: int
    id: int | None
    has_header: bool


def as_id(value: Any) -> Id:
    """Return an input's id as a JSON value: text for a date, for example, and None for a float that is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, Id) else str(value)


def is_content(line: str) -> bool:
    """Return whether a line of a plain list names an image: it is neither blank nor a comment."""
    return not line.isspace() and not line.lstrip().startswith("#")


def with_its_encoding_checked(record: Record) -> Record:
    """Return the record, with a problem if its image or its id is not UTF-8 text."""
    image, own_id = (
        _NOT_UTF_8.sub("\N{REPLACEMENT CHARACTER}", text) if isinstance(text, str) else text
        for text in (record.image, record.id)
    )
    if (image, own_id) == (record.image, record.id):
        return record
    problem = record.problem or f"line {record.line} is not UTF-8 text; save the list as UTF-8"
    return replace(record, image=str(image), id=own_id, problem=problem)


def plain(lines: Iterable[str]) -> Iterator[Record]:
    """Yield an image for each line, except blank lines and those that begin with ``#``."""
    for number, line in enumerate(lines, 1):
        if is_content(line):
            yield Record(number, line.strip())


def jsonl(lines: Iterable[str], key: str | None) -> Iterator[Record]:
    """Yield an image for each line, which holds an object or a string."""
    for number, line in enumerate(lines, 1):
        if line.isspace():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):  # thousands of nested brackets raise RecursionError
            yield Record(number, "", "the line is not JSON")
            continue
        yield _from_json(number, value, key)


def plain_or_jsonl(lines: Iterator[str], key: str | None) -> Iterator[Record]:
    """Yield the images of a list, which is JSONL if its first line with content begins like JSON, or else plain."""
    first, lines = peeked(lines)
    return jsonl(lines, key) if first.lstrip().startswith(("{", '"')) else plain(lines)


def table(
    lines: Iterator[str], column: str | None, delimiter: str | None = None, folder: Path | None = None
) -> Iterator[Record]:
    """Yield an image for each row; without a ``delimiter`` the first line decides which one the table has.

    Args:
        folder: the table's folder, to which the paths of files in the table may be relative.
    """
    first, lines = peeked(lines)
    reader = csv.reader(lines, delimiter=delimiter or delimiter_of(first, is_row=_is_number(column)))
    begins = 1
    columns: Columns | None = None
    while True:
        line = begins
        try:
            row = next(reader, None)
        except csv.Error as error:
            if columns is None:
                raise InvalidJob(f"the table's first row cannot be read: {error}.") from None
            yield Record(line, "", f"the row cannot be read ({error}); a quotation mark may be missing")
            continue
        finally:
            begins = reader.line_num + 1
        if row is None:
            return
        if not any(cell.strip() for cell in row):
            continue
        if columns is None:
            columns = find_columns(row, column, folder)
            if columns.has_header:
                continue
        yield _from_row(line, row, columns)


def find_columns(row: Sequence[str], column: str | None, folder: Path | None = None) -> Columns:
    """Find the columns in a table's first row, or by the names of a Parquet file's columns.

    Raises:
        InvalidJob: there is no such column, or none that seems to hold the images.
        UsageError: the table has no column of the given number.
    """
    names = [cell.strip() for cell in row]
    lower = [name.lower() for name in names]
    looks_like_data = any("://" in cell for cell in names)
    with_id = lower.index(ID_NAME) if ID_NAME in lower else None
    if column is not None:
        position = int(column) - 1 if _is_number(column) else None
        exists = position is not None and 0 <= position < len(row)
        if position is not None and exists and (looks_like_data or looks_like_image(names[position], folder)):
            return Columns(position, None, False)
        if column in names:
            return Columns(names.index(column), with_id, True)
        if position is not None and exists:
            return Columns(position, with_id, True)
        if position is not None:
            raise UsageError(f"the table has {counted(len(row), 'column')}, so it has no column {column}.")
        raise InvalidJob(f"the table has no column {column!r}; its columns are {', '.join(names)[:300]}.")
    for name in IMAGE_NAMES:
        if name in lower:
            return Columns(lower.index(name), with_id, True)
    if looks_like_data:
        return Columns(next(position for position, cell in enumerate(names) if "://" in cell), None, False)
    raise InvalidJob(
        f"no column of the table is called image or url; choose one of {', '.join(names)[:300]} with --column."
    )


def _from_json(number: int, value: Any, key: str | None) -> Record:
    own_id: Id = None
    if isinstance(value, dict):
        names = (key,) if key is not None else IMAGE_NAMES
        own_id = as_id(value.get(ID_NAME))
        value = next((value[name] for name in names if name in value), None)
    if isinstance(value, str) and value.strip():
        return Record(number, value.strip(), id=own_id)
    return Record(number, "", f"the line has no text under {key or 'image or url'}", own_id)


def _from_row(line: int, row: list[str], columns: Columns) -> Record:
    own_id = row[columns.id].strip() if columns.id is not None and columns.id < len(row) else None
    if columns.image >= len(row):
        problem = f"the row has {counted(len(row), 'column')}, and the image's column is {columns.image + 1}"
        return Record(line, "", problem, own_id)
    image = row[columns.image].strip()
    if not image:
        return Record(line, "", "the row has no image", own_id)
    if "\n" in image:
        return Record(line, "", "the image spans several lines; a quotation mark may be missing", own_id)
    return Record(line, image, id=own_id)


def peeked(lines: Iterable[str]) -> tuple[str, Iterator[str]]:
    """Return the first line with content, and an iterator that still has all lines."""
    seen: list[str] = []
    lines = iter(lines)
    for line in lines:
        seen.append(line)
        if is_content(line):
            break
    return seen[-1] if seen else "", itertools.chain(seen, lines)


def delimiter_of(first: str, *, is_row: bool) -> str:
    """Return the delimiter that is the most frequent in a table's first line.

    Text after ``://`` does not count, because a URL may contain commas and semicolons. But if no delimiter precedes the
    URL, a tab after it counts, and so does a semicolon if the line is a row of several columns and has no comma.
    """
    before_url, is_data, _ = first.partition("://")
    found = max(_DELIMITERS, key=before_url.count)
    if found not in before_url and is_data:
        if "\t" in first:
            return "\t"
        if is_row and "," not in first:
            return ";"
    return found


def _is_number(column: str | None) -> bool:
    return column is not None and column.isdecimal()


def looks_like_image(cell: str, folder: Path | None) -> bool:
    """Return whether a cell is a URL, has the ending of a picture's name, or is the path of a file."""
    if "://" in cell or Path(cell).suffix.lower() in ENDINGS:
        return True
    try:
        return Path(cell).is_file() or (folder is not None and (folder / cell).is_file())
    except (OSError, ValueError):  # the system refuses the path, for example because it is too long
        return False
