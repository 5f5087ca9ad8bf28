"""The result of a download: a file, or the digest, size and cached embedding of a file that was not downloaded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


class File:
    """A downloaded file, with its digest, its size and, until `take` is called, its bytes.

    Jobs that share a download each call `take` on a copy of their own, which `copy.copy` makes.
    """

    def __init__(self, data: bytes) -> None:
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.size_bytes = len(data)
        self._data = data

    def take(self) -> bytes:
        """Return the bytes and drop this object's reference to them. A second call returns empty bytes."""
        data, self._data = self._data, b""
        return data


@dataclass(frozen=True, slots=True)
class KnownFile(Generic[T]):
    """A file that was not downloaded, because its embedding is cached."""

    sha256: str
    size_bytes: int
    embedding: T
