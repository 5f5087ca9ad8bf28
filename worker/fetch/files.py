"""What a download ends with: a file, or what is known of one that need not be downloaded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


class File:
    """A downloaded file. Its digest and size stay; `take` hands over the bytes once.

    Jobs that share a download each take the bytes from a copy of their own, made by `copy.copy`.
    """

    def __init__(self, data: bytes) -> None:
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.size_bytes = len(data)
        self._data = data

    def take(self) -> bytes:
        """Return the bytes and drop the file's own reference; empty the second time."""
        data, self._data = self._data, b""
        return data


@dataclass(frozen=True, slots=True)
class KnownFile(Generic[T]):
    """A file that was not downloaded, because its embedding is cached."""

    sha256: str
    size_bytes: int
    embedding: T
