"""Read the images of a bulk run from a Parquet file, with pyarrow (the extra ``parquet``)."""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from producer.cli.bulk.rows import Record, as_id, find_columns
from producer.errors import InvalidJob, NameshotError

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

#: The numbers of rows, and of bytes of a column, that are in memory at a time; a file's row groups may be far larger.
_ROWS: Final = 1024
_BUFFER_BYTES: Final = 1 << 16


def parquet(name: str, stream: io.BufferedReader, column: str | None) -> Iterator[Record]:
    """Yield an image for each row."""
    with _opened(name, stream) as file:
        names: list[str] = file.schema_arrow.names
        columns = find_columns(names, column)
        image_name = names[columns.image]
        id_name = None if columns.id is None else names[columns.id]
        number = 0
        wanted = [name for name in (image_name, id_name) if name is not None]
        for batch in file.iter_batches(_ROWS, columns=wanted, use_threads=False):
            images = batch.column(image_name).to_pylist()
            ids = [None] * len(images) if id_name is None else batch.column(id_name).to_pylist()
            for image, own_id in zip(images, ids, strict=True):
                number += 1
                yield _record(number, image, own_id, image_name)


def count(name: str, stream: io.BufferedReader) -> int:
    """Return the number of rows, which the file states at its end."""
    with _opened(name, stream) as file:
        return int(file.metadata.num_rows)


def _record(number: int, image: Any, own_id: Any, column: str) -> Record:
    if isinstance(image, str) and image.strip():
        return Record(number, image.strip(), id=as_id(own_id))
    return Record(number, "", f"the row has no text under {column}", as_id(own_id))


@contextlib.contextmanager
def _opened(name: str, stream: io.BufferedReader) -> Iterator[ParquetFile]:
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise NameshotError(
            f"{name} is Parquet, and pyarrow is not installed; install nameshot[parquet], or give CSV or JSONL."
        ) from None
    try:
        with _seekable(stream) as whole, ParquetFile(whole, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
            yield file
    except (pyarrow.ArrowException, KeyError, OSError, EOFError, zlib.error) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise InvalidJob(f"{name} cannot be read as Parquet: {reason}.") from None


@contextlib.contextmanager
def _seekable(stream: io.BufferedReader) -> Iterator[BinaryIO]:
    """Yield the stream itself, or its content in a temporary file if it can be read only once or is slow to seek in."""
    if isinstance(stream.raw, io.FileIO) and stream.seekable():
        yield stream
        return
    with tempfile.TemporaryFile() as whole:
        shutil.copyfileobj(stream, whole)
        whole.seek(0)
        yield whole
