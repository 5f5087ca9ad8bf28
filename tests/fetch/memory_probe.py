"""Measures how much memory downloads take: ``python -m tests.fetch.memory_probe MAX_BYTES URL…``.

It runs in its own process, because a process's peak of memory never falls. It prints, as JSON, for each URL by how
many bytes the peak grew, and the size of the file or the error code.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from urllib.parse import urlsplit

from producer.errors import JobFailed
from tests.images.memory_probe import peak_bytes
from worker.fetch import Fetcher, UrlPolicy

TIMEOUT_S = 60.0


def main(max_bytes: int, urls: list[str]) -> None:
    """Download one URL after another and print the result."""
    allow = ",".join(f"127.0.0.1/32:{urlsplit(url).port}" for url in urls)
    found: list[tuple[int, str]] = []
    with closing(Fetcher(UrlPolicy.parsed("80", allow, ""), max_bytes=max_bytes, timeout_s=TIMEOUT_S)) as fetcher:
        for url in urls:
            before = peak_bytes()
            try:
                code = f"{fetcher.fetch(url).size_bytes} bytes"
            except JobFailed as failure:
                code = failure.code
            found.append((peak_bytes() - before, code))
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
