"""Freed memory goes back to the system: how the C library keeps what decoding and the model have freed."""

from __future__ import annotations

import ctypes
import os
from typing import Final

#: glibc makes eight arenas a core for its threads and keeps freed memory in each. Decoding allocates seldom and much,
#: so that two arenas are not fought over.
ARENAS: Final = 2
#: What an arena may keep: enough that images of usual sizes are decoded in memory that is there already.
KEPT_BYTES_PER_ARENA: Final = 64 << 20
#: Larger pieces are given back at once. Left alone, glibc raises this to 32 MB, and images of all sizes then lie in
#: arenas between holes: 3.1 GB for 24 of the largest JPEG files, where decoding held 1.8 GB. Most images, and what
#: ViT-B/32 makes of a batch of eight, are smaller.
GIVEN_BACK_BYTES: Final = 8 << 20
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8


def bound_malloc() -> None:
    """Bound the memory that is freed and kept; once, before threads and before torch. Other libraries need no help."""
    # Pages of 2 MB make up for pieces that come anew from the system in each forward pass. torch reads it once.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, ARENAS)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES_PER_ARENA)
        mallopt(_M_MMAP_THRESHOLD, GIVEN_BACK_BYTES)
