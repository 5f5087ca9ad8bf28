"""Open the input of a bulk run, of any length and format, and read it one record at a time."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from producer.cli.bulk import rows
from producer.cli.bulk.rows import Format, Record
from producer.cli.streams import StreamFailed
from producer.errors import InvalidJob, UsageError

#: What the module gzip raises for a file that is cut off or damaged.
_DAMAGED: Final = (EOFError, gzip.BadGzipFile, zlib.error)
_BY_SUFFIX: Final[dict[str, Format]] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
}
_GZIP: Final = b"\x1f\x8b"
_PARQUET: Final = b"PAR1"
_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, slots=True)
class BulkInput:
    """The list of images: a file, or standard input (``-``)."""

    name: str
    format: Format = "auto"
    column: str | None = None

    @contextlib.contextmanager
    def open(self) -> Iterator[io.BufferedReader]:
        """Open the input and unpack it if it is gzipped; raise `InvalidJob` if it cannot be opened."""
        with contextlib.ExitStack() as opened:
            try:
                stream = opened.enter_context(self._raw())
                if stream.peek(len(_GZIP)).startswith(_GZIP):
                    stream = opened.enter_context(io.BufferedReader(gzip.GzipFile(fileobj=stream)))
            except StreamFailed:
                raise
            except OSError as error:
                raise InvalidJob(f"{self.name} cannot be read: {error.strerror}.") from None
            yield stream

    def records(self, stream: io.BufferedReader) -> Iterator[Record]:
        """Yield each image in order, skipping blank lines.

        Raises:
            InvalidJob: a table lacks the column that the user named, or has none that seems to hold the images; or the
                input cannot be read to its end.
            UsageError: the input is not text, or lacks the column of the number that the user gave.
        """
        kind = self._kind(stream)
        if kind == "parquet":
            from producer.cli.bulk.parquet import parquet

            return parquet(self.name, stream, self.column)
        return map(rows.with_its_encoding_checked, self._text_records(kind, self._lines(stream)))

    def _text_records(self, kind: Format, lines: Iterator[str]) -> Iterator[Record]:
        match kind:
            case "csv":
                return rows.table(lines, self.column, folder=Path(self.name).parent)
            case "tsv":
                return rows.table(lines, self.column, "\t", Path(self.name).parent)
            case "jsonl":
                return rows.jsonl(lines, self.column)
            case "text":
                return rows.plain(lines)
        return rows.plain_or_jsonl(lines, self.column)

    def count(self) -> int | None:
        """Return the number of records, for the progress bar; None if the input can be read only once."""
        if self.name == "-" or not Path(self.name).is_file():
            return None
        with self.open() as stream:
            match self._kind(stream):
                case "parquet":
                    from producer.cli.bulk.parquet import count

                    return count(self.name, stream)
                case "csv" | "tsv":
                    return sum(1 for _ in self.records(stream))
                case "jsonl":
                    return sum(1 for line in self._lines(stream) if not line.isspace())
            return sum(1 for line in self._lines(stream) if rows.is_content(line))

    def _raw(self) -> io.BufferedReader:
        if self.name == "-":
            return cast("io.BufferedReader", sys.stdin.buffer)
        return Path(self.name).open("rb")

    def _kind(self, stream: io.BufferedReader) -> Format:
        if self.format != "auto":
            return self.format
        name = Path(self.name.removesuffix(".gz"))
        if known := _BY_SUFFIX.get(name.suffix.lower()):
            return known
        try:
            beginning = stream.peek(len(_PARQUET))
        except _DAMAGED:
            raise self._damaged(0) from None
        if beginning.startswith(_PARQUET):
            return "parquet"
        return "csv" if self.column is not None and self.name == "-" else "auto"

    def _lines(self, stream: io.BufferedReader) -> Iterator[str]:
        """Yield each line, in which surrogates stand for bytes that are not UTF-8."""
        # The csv module requires newline="", since it splits lines itself.
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
        number = 0
        try:
            self._check_text(stream.peek())
            with text:
                for line in text:
                    number += 1
                    yield line
        except _DAMAGED:
            raise self._damaged(number) from None
        except StreamFailed:
            raise
        except OSError as error:
            raise InvalidJob(f"{self.name} cannot be read after line {number}: {error.strerror}.") from None

    def _damaged(self, number: int) -> InvalidJob:
        return InvalidJob(f"{self.name} cannot be read after line {number}: the gzip file is damaged.")

    def _check_text(self, beginning: bytes) -> None:
        """Raise `UsageError` if the input's first bytes are those of UTF-16 or of no text at all."""
        if beginning.startswith(_UTF_16):
            raise UsageError(f"{self.name} is UTF-16; save it as UTF-8.")
        if b"\0" in beginning:
            raise UsageError(
                f"{self.name} is not text, so it is no list of images; `nameshot classify` takes pictures."
            )
