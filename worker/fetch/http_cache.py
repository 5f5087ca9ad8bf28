"""An HTTP cache without bodies: stores, per URL, the file's digest and the terms on which the response may be reused.

`worker.embeddings.image_cache` caches the embedding under the file's digest, so the worker does not need the file
again. While the response for a URL is fresh, the worker sends no request. Afterwards it revalidates the response, and
downloads the file only if it has changed.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from producer.contract.names import Queue
from worker.concurrency.cancel_scope import CancelScope
from worker.concurrency.lru import Bounded
from worker.fetch.fetcher import Fetcher
from worker.fetch.files import File, KnownFile
from worker.fetch.freshness import CacheTerms
from worker.fetch.uploads import Fetchers

#: One entry uses this much memory, as measured, without its key and its ETag.
OVERHEAD_BYTES: Final = 440

T = TypeVar("T")


@dataclass(frozen=True, slots=True, repr=False)
class _Entry:
    """The cache entry of a URL, for the file that its server last sent or confirmed."""

    sha256: str
    size_bytes: int
    terms: CacheTerms

    @property
    def nbytes(self) -> int:
        return OVERHEAD_BYTES + sys.getsizeof(self.terms.etag)


class CachingFetcher(Generic[T]):
    """An HTTP cache in front of a `Fetcher` or `Fetchers`. Thread-safe.

    The cache checks each URL against the policy, as an uncached fetch does. It stores only a keyed digest of the URL,
    because a signed URL is a secret.

    Args:
        fetcher: downloads the images.
        recall: returns the cached embedding of the file with this digest; None if there is none.
        max_bytes: the largest memory of all entries, in bytes.

    Attributes:
        hits: the number of images for which the worker sent no request.
        revalidated: the number of images that their server confirmed to be unchanged.
        misses: the number of downloaded images.
    """

    def __init__(self, fetcher: Fetcher | Fetchers, recall: Callable[[str], T | None], *, max_bytes: int) -> None:
        self._fetcher = fetcher
        self._recall = recall
        self._secret = os.urandom(32)
        self._lock = threading.Lock()
        self._entries: Bounded[_Entry] = Bounded(max_bytes)
        self.hits = 0
        self.revalidated = 0
        self.misses = 0

    @property
    def kept_bytes(self) -> int:
        """The memory of the present entries, in bytes."""
        return self._entries.nbytes

    def fetch(self, url: str, *, scope: CancelScope | None = None, queue: Queue = "default") -> File | KnownFile[T]:
        """Return a downloaded image, or the `KnownFile` of an image whose embedding is cached."""
        target = self._fetcher.check(url)
        key = hashlib.blake2b(target.url.encode(), key=self._secret, digest_size=16).digest()
        with self._lock:
            entry = self._entries.recall(key)
        # Keep a reference, because the embedding cache may evict it during the request.
        embedding = self._recall(entry.sha256) if entry is not None else None
        if entry is None or embedding is None:
            fetched = self._fetcher.download(target, None, scope, queue)
        else:
            known = KnownFile(entry.sha256, entry.size_bytes, embedding)
            if time.monotonic() < entry.terms.fresh_until_s:
                with self._lock:
                    self.hits += 1
                return known
            fetched = self._fetcher.download(target, entry.terms, scope, queue)
            if fetched.is_unchanged:
                self._store(key, fetched.terms, entry.sha256, entry.size_bytes)
                with self._lock:
                    self.revalidated += 1
                return known
        file = File(fetched.body)
        self._store(key, fetched.terms, file.sha256, file.size_bytes)
        with self._lock:
            self.misses += 1
        return file

    def close(self) -> None:
        """Implement `Downloads.close`."""
        self._fetcher.close()

    def _store(self, key: bytes, terms: CacheTerms | None, sha256: str, size_bytes: int) -> None:
        with self._lock:
            if terms is None:
                self._entries.forget(key)
            else:
                self._entries.remember(key, _Entry(sha256, size_bytes, terms))
