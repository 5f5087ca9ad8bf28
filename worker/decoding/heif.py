"""Makes Pillow open HEIC pictures, which phones take, if the optional package ``pillow-heif`` is installed."""

from __future__ import annotations

import importlib
from functools import cache
from importlib.util import find_spec
from typing import Final

#: The major brands of pictures and sequences that are compressed with HEVC, and the two general ones.
_BRANDS: Final = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def is_heif(brand: bytes) -> bool:
    """Return whether a container of this brand may hold a HEIC picture."""
    return brand in _BRANDS


@cache
def register_heif() -> bool:
    """Have Pillow open HEIC pictures, if ``pillow-heif`` is installed; return whether it is."""
    if find_spec("pillow_heif") is None:
        return False
    plugin = importlib.import_module("pillow_heif")
    # Decode only the picture itself, in one thread besides the caller's; libde265 always starts at least one.
    plugin.register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False, aux_images=False)
    return True
