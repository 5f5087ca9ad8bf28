"""HTTP caching without bodies: what is kept of a URL is which file it gave, and on which terms that may be relied on.

A file's embedding is kept under its digest (`worker.embeddings.of_images`), and with it nobody needs the file. So a URL
whose answer is fresh is not asked for at all, and one whose server says that nothing has changed is not downloaded.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from producer.contract import Queue
from worker.concurrency.cancel_scope import CancelScope
from worker.concurrency.lru import Bounded
from worker.embeddings.of_images import Embedding, KnownFile
from worker.fetch.fetcher import Fetcher
from worker.fetch.freshness import CacheTerms

#: What Python takes for a URL beside its key and its ETag; measured.
OVERHEAD_BYTES: Final = 440


@dataclass(frozen=True, slots=True, repr=False)
class _Page:
    """What a URL gave when it was last asked."""

    sha256: str
    size_bytes: int
    terms: CacheTerms

    @property
    def nbytes(self) -> int:
        return OVERHEAD_BYTES + sys.getsizeof(self.terms.etag)


class CachingFetcher:
    """A `Fetcher` that asks for no more than it must. Thread-safe.

    URLs are judged as ever, and kept as keyed digests only: one with a signature is a secret.

    Args:
        fetcher: downloads.
        recall: the embedding of the file with a digest, while it is kept.
        max_bytes: of what is kept of URLs.

    Attributes:
        hits: images for which no server was asked.
        revalidated: images of which the server said that they have not changed.
        misses: images that were downloaded.
    """

    def __init__(self, fetcher: Fetcher, recall: Callable[[str], Embedding | None], *, max_bytes: int) -> None:
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
        """What is kept of URLs now."""
        return self._pages.nbytes

    def fetch(
        self,
        url: str,
        *,
        timeout_s: float | None = None,
        scope: CancelScope | None = None,
        queue: Queue = "default",
    ) -> bytes | KnownFile:
        """As `Fetcher.fetch`, or what is known of the same bytes."""
        target = self._fetcher.judge(url)
        key = hashlib.blake2b(target.url.encode(), key=self._secret, digest_size=16).digest()
        with self._lock:
            page = self._pages.recall(key)
        # Held from here on: it may be forgotten while the server is asked.
        embedding = self._recall(page.sha256) if page is not None else None
        if page is None or embedding is None:
            fetched = self._fetcher.ask(target, timeout_s=timeout_s, scope=scope, queue=queue)
        else:
            known = KnownFile(page.sha256, page.size_bytes, embedding)
            if time.monotonic() < page.terms.fresh_until_s:
                with self._lock:
                    self.hits += 1
                return known
            fetched = self._fetcher.ask(target, page.terms, timeout_s=timeout_s, scope=scope, queue=queue)
            if fetched.is_unchanged:
                self._note(key, fetched.terms, page.sha256, page.size_bytes)
                with self._lock:
                    self.revalidated += 1
                return known
        digest = hashlib.sha256(fetched.body).hexdigest() if fetched.terms is not None else ""
        self._note(key, fetched.terms, digest, len(fetched.body))
        with self._lock:
            self.misses += 1
        return fetched.body

    def close(self) -> None:
        """As `Fetcher.close`."""
        self._fetcher.close()

    def _note(self, key: bytes, terms: CacheTerms | None, sha256: str, size_bytes: int) -> None:
        with self._lock:
            if terms is None:
                self._pages.forget(key)
            else:
                self._pages.remember(key, _Page(sha256, size_bytes, terms))
