"""Makes the C library return the memory that decoding and the model free to the system."""

from __future__ import annotations

import ctypes
import os
from typing import Final

#: The C library glibc creates up to eight arenas per core and keeps freed memory in each. Decoding allocates seldom and
#: in large blocks, so threads do not contend for two arenas.
ARENAS: Final = 2
#: An arena may keep this much freed memory, enough to decode images of usual sizes without asking the kernel for more.
KEPT_BYTES_PER_ARENA: Final = 64 << 20
#: Larger blocks return to the kernel when freed. By default glibc raises this to 32 MB, and large images fragment the
#: arenas: 3.1 GB for 24 of the largest JPEG files, of which decoding held 1.8 GB. Most images, and ViT-B/32's
#: activations for a batch of eight, are smaller.
GIVEN_BACK_BYTES: Final = 8 << 20
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8


def bound_malloc() -> None:
    """Bound the freed memory that glibc keeps; call it once, before threads and torch start."""
    # Huge pages of 2 MB make up for fresh blocks in each forward pass. torch reads this once.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, ARENAS)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES_PER_ARENA)
        mallopt(_M_MMAP_THRESHOLD, GIVEN_BACK_BYTES)
