"""Write a bulk run's answers to a JSONL file; the next run continues it, even if its last line was truncated.

Each line is ``{"line", "id", "url", "question", "result" | "error"}``. ``line`` is the record's line in the input, and
``id`` exists only if the record has one. ``question`` is a digest of labels, template and top_k, by which a run
recognises answers to another question.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sys
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from io import RawIOBase
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

from producer.cli.bulk.rows import Record
from producer.errors import NameshotError

#: A power cut may lose the answers of this many seconds; a killed process loses none that it has written.
_SYNC_EVERY_S: Final = 1.0
#: `nameshot bulk` begins every line with these bytes; a very short truncated line holds only the first of them.
_BEGINNING: Final = b'{"line": '


class BulkOutputError(NameshotError):
    """The output file cannot be used, or does not belong to this input and question."""


class BulkOutput:
    """Appends answers, and tracks which lines of the input have one.

    Args:
        file: the output file; None is standard output, which cannot be resumed.
        question: the digest from `question_digest`.
        retry_failed: whether to drop the retryable errors, so that their images run again.

    Raises:
        BulkOutputError: the file cannot be opened, another run is writing to it, `nameshot bulk` did not write all of
            its lines, or they answer another question.
    """

    def __init__(self, file: Path | None, question: str, *, retry_failed: bool = False) -> None:
        self._question = question
        self._name = str(file) if file is not None else "standard output"
        # The digest of each answered line's image; at eight bytes a line, a million lines take 8 MB.
        self._answered = array("Q")
        self.succeeded = 0
        self.codes: Counter[str] = Counter()
        self.retryable = 0
        self._synced_at_s = time.monotonic()
        self._is_regular_file = False
        if file is None:
            self._file: RawIOBase | BinaryIO = sys.stdout.buffer
            return
        try:
            self._file = _open_locked(file)
            try:
                self._is_regular_file = file.is_file()
                if self._is_regular_file:
                    self._read_earlier_answers(file, retry_failed=retry_failed)
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise BulkOutputError(f"{file} cannot be used: {error.strerror}.") from None

    @property
    def failed(self) -> int:
        """The number of lines whose answer is an error."""
        return self.codes.total()

    def has(self, record: Record) -> bool:
        """Return whether this record already has an answer.

        Raises:
            BulkOutputError: the answer is for another image, so the input has changed.
        """
        if record.line >= len(self._answered) or not self._answered[record.line]:
            return False
        if self._answered[record.line] != _digest(record.image):
            raise BulkOutputError(
                f"{self._name} holds an answer for line {record.line}, but the input now has a different image on that "
                "line; write to another file with -o."
            )
        return True

    def write(self, record: Record, answer: dict[str, Any]) -> None:
        """Append one answer: ``{"result": …}`` or ``{"error": …}``."""
        own_id = {} if record.id is None else {"id": record.id}
        entry = {"line": record.line, **own_id, "url": record.image, "question": self._question, **answer}
        try:
            # One write per line, so that a kill truncates at most the last line.
            rest = json.dumps(entry, ensure_ascii=False).encode(errors="replace") + b"\n"
            while rest:  # a nearly full disk may accept only a part of the line
                rest = rest[self._file.write(rest) :]
            self._file.flush()
            if self._is_regular_file and time.monotonic() - self._synced_at_s > _SYNC_EVERY_S:
                os.fsync(self._file.fileno())
                self._synced_at_s = time.monotonic()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise BulkOutputError(
                f"{self._name} cannot be written: {error.strerror}; run the command again to resume."
            ) from None
        self._count(record.line, record.image, answer)

    def close(self) -> None:
        """Flush everything to disk and release the lock."""
        if self._file is sys.stdout.buffer:
            return
        if self._is_regular_file:
            os.fsync(self._file.fileno())
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _count(self, line: int, image: str, answer: dict[str, Any]) -> None:
        if line >= len(self._answered):
            missing = line + 1 - len(self._answered)
            self._answered.frombytes(bytes(8 * (missing + len(self._answered) // 8)))
        self._answered[line] = _digest(image)
        if (error := answer.get("error")) is None:
            self.succeeded += 1
        else:
            self.codes[error["code"]] += 1
            self.retryable += bool(error["retryable"])

    def _read_earlier_answers(self, file: Path, *, retry_failed: bool) -> None:
        """Read the earlier runs' answers; change the file only once all of its lines are known to be valid."""
        complete_bytes = 0
        to_retry = 0
        for entry, raw in _entries(file):
            if entry["question"] != self._question:
                raise BulkOutputError(
                    f"{self._name} contains answers for other labels, another template or another --top-k; "
                    "write to another file with -o."
                )
            complete_bytes += len(raw)
            if retry_failed and _is_retryable(entry):
                to_retry += 1
            else:
                self._count(entry["line"], entry["url"], entry)
        # If the previous run was killed while it wrote a line, drop that incomplete line.
        os.truncate(file, complete_bytes)
        if to_retry:
            _remove_retryable(file)
            self._file.close()
            self._file = _open_locked(file)


def question_digest(labels: list[str], template: str | list[str], top_k: int | None) -> str:
    """Return a short digest of one question, which depends on the order of the labels, since that breaks ties."""
    question = json.dumps([labels, template, top_k], ensure_ascii=True)
    return hashlib.blake2b(question.encode(), digest_size=4).hexdigest()


def _digest(image: str) -> int:
    # The digest is never 0, which stands for "no answer".
    return int.from_bytes(hashlib.blake2b(image.encode(errors="replace"), digest_size=8).digest(), "big") or 1


def _open_locked(file: Path) -> RawIOBase:
    # Unbuffered, so that closing the file does not retry a failed write.
    opened = file.open("ab", buffering=0)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        opened.close()
        raise BulkOutputError(
            f"another `nameshot bulk` is writing to {file}; wait for it, or choose another -o."
        ) from None
    return opened


def _entries(file: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Yield each complete line, parsed and raw; raise `BulkOutputError` if `nameshot bulk` did not write it."""
    with file.open("rb") as lines:
        for number, raw in enumerate(lines, 1):
            if not raw.endswith(b"\n") and raw[: len(_BEGINNING)] == _BEGINNING[: len(raw)]:
                return
            try:
                entry = json.loads(raw)
                _ = (entry["line"] + 0, entry["url"] + "", entry["question"], entry.get("result") or entry["error"])
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise BulkOutputError(
                    f"line {number} of {file} was not written by `nameshot bulk`; write to another file with -o."
                ) from None
            yield entry, raw


def _is_retryable(entry: dict[str, Any]) -> bool:
    return "error" in entry and bool(entry["error"]["retryable"])


def _remove_retryable(file: Path) -> None:
    """Replace the file atomically with one that lacks the retryable errors."""
    draft = file.with_name(file.name + ".draft")
    try:
        with draft.open("wb") as kept:
            kept.writelines(raw for entry, raw in _entries(file) if not _is_retryable(entry))
            kept.flush()
            os.fsync(kept.fileno())
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
