"""Opens AVIF files as Pillow does, but in one thread and without Pillow's slow processing of EXIF."""

from __future__ import annotations

from typing import IO, Final, cast

from PIL import AvifImagePlugin, ExifTags, Image

from worker.decoding.metadata import MAX_ORIENTATION_BYTES

#: The brands, as the file's first box states them, of AVIF pictures and AVIF sequences, and two general ones.
_BRANDS: Final = (b"avif", b"avis", b"mif1", b"msf1")


class AvifFile(AvifImagePlugin.AvifImageFile):
    """An AVIF file whose header was read.

    Pillow's own class parses all EXIF and writes it again, only to set the orientation in it: half a minute for 18 MB.
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
        """The orientation that Pillow's own class would find, as a number from 1 to 8 as in EXIF.

        The orientation in the container (``irot`` and ``imir``) overrides that in EXIF, even if it is 1, upright. XMP
        counts only if the container's is 1, and EXIF states none and has at most `MAX_ORIENTATION_BYTES`.
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
        return int(self.getexif().get(ExifTags.Base.Orientation, 1))  # `info` has no EXIF, so this reads XMP


def is_avif(brand: bytes) -> bool:
    """Return whether a container of this brand may hold an AVIF picture, if this Pillow can decode AVIF."""
    return AvifImagePlugin.SUPPORTED and brand in _BRANDS
