"""Opens AVIF files as Pillow does, in one thread, and without its work on EXIF."""

from __future__ import annotations

from typing import IO, Final, cast

from PIL import AvifImagePlugin, ExifTags, Image

from worker.decoding.metadata import MAX_ORIENTATION_BYTES

#: A box of 16 bytes or more begins the file; its brand is that of AVIF pictures, of their sequences, or general.
_BRANDS: Final = (b"avif", b"avis", b"mif1", b"msf1")


class AvifFile(AvifImagePlugin.AvifImageFile):
    """An AVIF file whose header was read.

    Pillow's own class turns all EXIF into objects and back, only to write the orientation into it: half a minute for
    18 MB.
    """

    _container_orientation: int
    _exif_bytes: bytes | None

    def _open(self) -> None:
        from PIL import _avif  # absent in a Pillow that was built without libavif

        self._decoder = _avif.AvifDecoder(cast("IO[bytes]", self.fp).read(), "auto", 1)
        info = self._decoder.get_info()
        self._size, self.n_frames, self._mode, _, self._exif_bytes, self._container_orientation, xmp = info
        if xmp:
            self.info["xmp"] = xmp
        self.is_animated = self.n_frames > 1
        self.seek(0)

    @property
    def orientation(self) -> int:
        """The orientation that Pillow finds, as EXIF counts it.

        The container's (``irot`` and ``imir``) overrides that of EXIF, even if it is upright; XMP counts only if
        neither states one.
        """
        if self._container_orientation != 1 or "xmp" not in self.info:
            return self._container_orientation
        if self._exif_bytes:
            exif = Image.Exif()
            if len(self._exif_bytes) > MAX_ORIENTATION_BYTES:
                return 1
            exif.load(self._exif_bytes)
            if ExifTags.Base.Orientation in exif:
                return 1
        return int(self.getexif().get(ExifTags.Base.Orientation, 1))  # with no EXIF in `info`, this is that of XMP


def is_avif(brand: bytes) -> bool:
    """Whether a container of this brand may hold an AVIF picture, and Pillow can read those."""
    return AvifImagePlugin.SUPPORTED and brand in _BRANDS
