"""HTTP caching without bodies: stores a file's digest per URL, and the terms on which it may be reused.

The embedding is cached under the file's digest (`worker.embeddings.of_images`), so the file itself is not needed again.
While a URL's answer is fresh the worker sends no request; afterwards it revalidates, and downloads only if the file has
changed.
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

#: Measured memory of one entry, without its key and its ETag.
OVERHEAD_BYTES: Final = 440

T = TypeVar("T")


@dataclass(frozen=True, slots=True, repr=False)
class _Page:
    """The cache entry of a URL: the file that its server last sent or confirmed."""

    sha256: str
    size_bytes: int
    terms: CacheTerms

    @property
    def nbytes(self) -> int:
        return OVERHEAD_BYTES + sys.getsizeof(self.terms.etag)


class CachingFetcher(Generic[T]):
    """A `Fetcher` with an HTTP cache in front. Thread-safe.

    URLs are judged as without it, and stored as keyed digests only, since a signed URL is a secret.

    Args:
        fetcher: downloads the images.
        recall: returns the embedding of the file with this digest, while it is cached.
        max_bytes: bound on the entries' memory.

    Attributes:
        hits: images served without a request.
        revalidated: images that their server confirmed to be unchanged.
        misses: images that were downloaded.
    """

    def __init__(self, fetcher: Fetcher, recall: Callable[[str], T | None], *, max_bytes: int) -> None:
        self._fetcher = fetcher
        self._recall = recall
        self._secret = os.urandom(32)
        self._lock = threading.Lock()
        self._pages: Bounded[_Page] = Bounded(max_bytes)
        self.hits = 0
        self.revalidated = 0
        self.misses = 0

    @property
    def kept_bytes(self) -> int:
        """Memory of the present entries, in bytes."""
        return self._pages.nbytes

    def fetch(self, url: str, *, scope: CancelScope | None = None, queue: Queue = "default") -> File | KnownFile[T]:
        """Return a downloaded image, or the `KnownFile` of an image whose embedding is cached."""
        target = self._fetcher.judge(url)
        key = hashlib.blake2b(target.url.encode(), key=self._secret, digest_size=16).digest()
        with self._lock:
            page = self._pages.recall(key)
        # Held from here on, since it may be evicted during the request.
        embedding = self._recall(page.sha256) if page is not None else None
        if page is None or embedding is None:
            fetched = self._fetcher.ask(target, None, scope, queue)
        else:
            known = KnownFile(page.sha256, page.size_bytes, embedding)
            if time.monotonic() < page.terms.fresh_until_s:
                with self._lock:
                    self.hits += 1
                return known
            fetched = self._fetcher.ask(target, page.terms, scope, queue)
            if fetched.is_unchanged:
                self._note(key, fetched.terms, page.sha256, page.size_bytes)
                with self._lock:
                    self.revalidated += 1
                return known
        file = File(fetched.body)
        self._note(key, fetched.terms, file.sha256, file.size_bytes)
        with self._lock:
            self.misses += 1
        return file

    def close(self) -> None:
        """Implement `Downloads.close`."""
        self._fetcher.close()

    def _note(self, key: bytes, terms: CacheTerms | None, sha256: str, size_bytes: int) -> None:
        with self._lock:
            if terms is None:
                self._pages.forget(key)
            else:
                self._pages.remember(key, _Page(sha256, size_bytes, terms))
