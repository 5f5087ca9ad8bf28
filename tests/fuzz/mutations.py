"""Mutation without coverage, for systems without a wheel of Atheris and for short, reproducible runs."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Final

#: Extreme values, because lengths and counters fail mostly at their limits.
_EDGES: Final = (b"\0", b"\x7f", b"\x80", b"\xff", b"\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\0\0\0\0")
MOST_CHANGES: Final = 6


def inputs(seeds: Sequence[bytes], seed: int, max_bytes: int) -> Iterator[bytes]:
    """Yield the seeds, then endless mutations of them."""
    yield from seeds
    source = random.Random(seed)
    while True:
        data = source.choice(seeds)
        for _ in range(source.randint(1, MOST_CHANGES)):
            data = _change(data, seeds, source)
        yield data[:max_bytes]


def _change(data: bytes, seeds: Sequence[bytes], source: random.Random) -> bytes:
    at = source.randrange(len(data) + 1)
    end = min(len(data), at + source.choice((1, 1, 2, 4, 8, 64)))
    other = source.choice(seeds)
    start = source.randrange(len(other) + 1)
    piece = source.choice(
        (
            b"",
            data[at:end] * 2,
            source.choice(_EDGES),
            source.randbytes(end - at),
            bytes(byte ^ 1 << source.randrange(8) for byte in data[at:end]),
            other[start : start + source.choice((1, 4, 16, 256))],
        )
    )
    return data[:at] + piece + data[source.choice((at, end, end)) :]
