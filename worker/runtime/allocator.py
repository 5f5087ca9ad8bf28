"""Makes the C library return to the kernel the memory that decoding and the model free."""

from __future__ import annotations

import ctypes
import os
from typing import Final

#: By default glibc creates up to eight arenas per core and keeps freed memory in each. Decoding allocates seldom and in
#: large blocks, so threads do not contend for two arenas.
ARENAS: Final = 2
#: An arena may keep this much freed memory, which is enough to decode images of usual sizes without new memory from the
#: kernel.
KEPT_BYTES_PER_ARENA: Final = 64 << 20
#: A larger block returns to the kernel as soon as it is freed. By default glibc raises this threshold to up to 32 MB,
#: and large images then fragment the arenas: 24 of the largest JPEG files occupied 3.1 GB, of which decoding used 1.8
#: GB. Most images are smaller than this threshold, as are ViT-B/32's activations for a batch of eight.
GIVEN_BACK_BYTES: Final = 8 << 20
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8


def bound_malloc() -> None:
    """Limit the freed memory that glibc keeps; call this once, before threads and torch start."""
    # With huge pages of 2 MB, the new blocks of each forward pass cost little. Torch reads this variable once.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, ARENAS)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES_PER_ARENA)
        mallopt(_M_MMAP_THRESHOLD, GIVEN_BACK_BYTES)
