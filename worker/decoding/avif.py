"""Opens AVIF files as Pillow does, in one thread, and without its work on EXIF."""

from __future__ import annotations

from typing import IO, Final, cast

from PIL import AvifImagePlugin

#: A box of 16 bytes or more begins the file; its brand is that of AVIF pictures, of their sequences, or general.
_BRANDS: Final = (b"avif", b"avis", b"mif1", b"msf1")


class AvifFile(AvifImagePlugin.AvifImageFile):
    """An AVIF file whose header was read.

    Pillow's own class turns all EXIF into objects and back, only to write the orientation into it: half a minute for
    18 MB. The orientation is the container's (``irot`` and ``imir``), which overrides that of EXIF.

    Attributes:
        orientation: as EXIF counts it, 1 to 8.
    """

    orientation: int

    def _open(self) -> None:
        from PIL import _avif  # absent in a Pillow that was built without libavif

        self._decoder = _avif.AvifDecoder(cast("IO[bytes]", self.fp).read(), "auto", 1)
        self._size, self.n_frames, self._mode, _, _, self.orientation, _ = self._decoder.get_info()
        self.is_animated = self.n_frames > 1
        self.seek(0)


def is_avif(brand: bytes) -> bool:
    """Whether a container of this brand may hold an AVIF picture, and Pillow can read those."""
    return AvifImagePlugin.SUPPORTED and brand in _BRANDS
