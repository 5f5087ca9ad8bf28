"""Metadata that the pixels do not need costs no time and breaks nothing; metadata that they need is kept."""

from __future__ import annotations

import contextlib
import io
import struct
import time
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tests.images.conftest import MAX_PIXELS, code_of, sentence_of
from tests.images.corpus import GIF, JPEG, LADEN, PNG
from tests.images.files import chunk, encoded, photo, png_header, segment
from worker.decoding.images import open_image
from worker.decoding.metadata import without_metadata

BARE = {"JPEG": JPEG, "PNG": PNG, "GIF": GIF}
#: A rotation by 90 degrees, as EXIF and as XMP.
TURNED = Image.Exif()
TURNED[0x0112] = 6
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"/>'


def pixels(data: bytes) -> bytes:
    return open_image(data, max_pixels=MAX_PIXELS).decode().image.tobytes()


def as_the_pipeline_opens(data: bytes) -> bytes:
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB").tobytes()


@pytest.mark.parametrize("name", LADEN)
def test_a_picture_has_the_same_pixels_whatever_metadata_it_has(name: str) -> None:
    bare = BARE[name.partition(",")[0]]
    started_s = time.thread_time()
    assert pixels(LADEN[name]) == pixels(bare)
    assert time.thread_time() - started_s < 1.0


def rows_apart(width: int, height: int) -> bytes:
    """Return a PNG with one chunk for each row, as from an encoder that flushes after each."""
    grey = np.random.default_rng(5).integers(0, 256, (height, width), dtype=np.uint8)
    compressor = zlib.compressobj()
    chunks = []
    for row in grey:
        data = compressor.compress(b"\0" + row.tobytes()) + compressor.flush(zlib.Z_SYNC_FLUSH)
        chunks.append(chunk(b"IDAT", data))
    chunks.append(chunk(b"IDAT", compressor.flush()))
    return png_header(width, height, 8, 0) + b"".join(chunks) + chunk(b"IEND")


@pytest.mark.parametrize(("width", "height"), [(200, 1_000), (40, 1_200), (200, 6_000)])
def test_a_png_may_have_a_chunk_for_each_row(width: int, height: int) -> None:
    data = rows_apart(width, height)
    assert pixels(data) == as_the_pipeline_opens(data)


def test_a_png_whose_chunks_of_pixels_are_not_consecutive_is_undecodable() -> None:
    data = rows_apart(20, 20)
    second = data.index(b"IDAT", data.index(b"IDAT") + 4) - 4
    assert code_of(data[:second] + chunk(b"tEXt", b"a\0b") + data[second:]) == "undecodable"


@pytest.mark.parametrize(
    "data",
    [
        JPEG[:2] + segment(0xFE, b"x" * 50) * 3_000 + segment(0xE1, TURNED.tobytes()) + JPEG[2:],
        JPEG[:2] + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP) + JPEG[2:],
        JPEG[:2] + segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + XMP) + JPEG[2:],
        JPEG[:2] + b"\xff" * 100 + segment(0xE1, TURNED.tobytes()) + JPEG[2:],
        PNG[:33] + chunk(b"eXIf", TURNED.tobytes()[6:]) + PNG[33:],
        PNG[:-12] + chunk(b"eXIf", TURNED.tobytes()[6:]) + PNG[-12:],
        PNG[:33] + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP) + PNG[33:],
        PNG[:33] + chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)) + PNG[33:],
        PNG[:33]
        + chunk(
            b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n 34\n" + TURNED.tobytes().hex().encode())
        )
        + PNG[33:],
        PNG[:33] + chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 34\n" + TURNED.tobytes().hex().encode()) + PNG[33:],
    ],
    ids=[
        "behind comments",
        "XMP",
        "further XMP",
        "fill bytes",
        "eXIf",
        "eXIf at the end",
        "iTXt",
        "packed iTXt",
        "packed profile",
        "profile",
    ],
)
def test_the_orientation_is_read_wherever_the_pipeline_reads_it(data: bytes) -> None:
    assert pixels(data) == as_the_pipeline_opens(data)


def segments(*markers: int) -> st.SearchStrategy[bytes]:
    return st.builds(segment, st.sampled_from(markers), st.binary(max_size=40))


JUNK = {
    "JPEG": segments(0xFE, *range(0xE3, 0xEE)) | st.just(b"\xff"),
    "PNG": st.builds(
        chunk, st.sampled_from([b"tEXt", b"prVt", b"tIME", b"gAMA", b"pHYs"]), st.binary(min_size=32, max_size=60)
    ),
    "GIF": st.builds(lambda text: b"\x21\xfe" + bytes([len(text)]) + text + b"\0", st.binary(min_size=1, max_size=40)),
}
PROGRESSIVE = encoded(photo(), "JPEG", progressive=True)
PLACES = {
    "JPEG": [
        2,
        *(PROGRESSIVE.index(mark) for mark in (b"\xff\xc2", b"\xff\xdb", b"\xff\xda")),
        PROGRESSIVE.rindex(b"\xff\xda"),
    ],
    "PNG": [33, len(PNG) - 12],
    "GIF": [781],
}


@pytest.mark.parametrize("kind", JUNK)
def test_parts_that_the_pixels_do_not_need_change_no_pixel(kind: str) -> None:
    bare = PROGRESSIVE if kind == "JPEG" else BARE[kind]
    expected = pixels(bare)

    @settings(max_examples=60, deadline=None)
    @given(junk=st.lists(JUNK[kind], max_size=30), place=st.sampled_from(PLACES[kind]))
    def holds(junk: list[bytes], place: int) -> None:
        assert pixels(bare[:place] + b"".join(junk) + bare[place:]) == expected

    holds()


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([JPEG, PNG, GIF, PROGRESSIVE]), st.binary(max_size=200), st.integers(0, 2_000), st.booleans())
def test_broken_structures_raise_no_unexpected_error(data: bytes, junk: bytes, place: int, cut: bool) -> None:
    broken = data[:place] + junk + (b"" if cut else data[place:])
    assert len(without_metadata(broken, max_pixels=50_000_000)) <= len(broken) + 12


IN_SCANS = {
    "baseline": JPEG,
    "progressive": PROGRESSIVE,
    "baseline, restarts": encoded(photo(), "JPEG", restart_marker_blocks=3),
    "progressive, restarts": encoded(photo(), "JPEG", progressive=True, restart_marker_blocks=2),
}
#: Bytes that look like a marker, perhaps with a length.
MARKER_LIKE = st.builds(
    lambda marker, rest: bytes((0xFF, marker)) + rest,
    st.sampled_from([*range(0xE0, 0xF0), 0xFE]) | st.integers(0, 255),
    st.binary(max_size=3),
)


def is_as_the_pipeline_has_it(data: bytes) -> bool:
    """Check that the pixels are the pipeline's, or that both refuse the picture; return whether there are any."""
    expected = None
    with contextlib.suppress(Exception):
        expected = as_the_pipeline_opens(data)
    if expected is None:
        assert code_of(data) == "undecodable"
        return False
    assert pixels(data) == expected
    return True


@pytest.mark.parametrize("kind", IN_SCANS)
def test_a_jpeg_that_is_damaged_in_its_scans_has_the_pipeline_s_pixels_or_is_refused_by_both(kind: str) -> None:
    whole = IN_SCANS[kind]
    first = whole.index(b"\xff\xda") + 4
    outcomes = set[bool]()

    @settings(max_examples=200, deadline=None)
    @given(
        overwrites=st.lists(
            st.tuples(st.integers(first, len(whole) - 1), MARKER_LIKE | st.binary(min_size=1, max_size=512)),
            min_size=1,
            max_size=3,
        ),
        behind=st.sampled_from([b"", PROGRESSIVE]),
    )
    def holds(overwrites: list[tuple[int, bytes]], behind: bytes) -> None:
        damaged = bytearray(whole)
        for place, written in overwrites:
            damaged[place : place + len(written)] = written
        data = bytes(damaged) + behind
        outcomes.add(is_as_the_pipeline_has_it(data))

    holds()
    assert outcomes == {True, False}


@pytest.mark.parametrize("kind", ["baseline", "baseline, restarts"])
@pytest.mark.parametrize("marker", [0xE0, 0xE1, 0xEE, 0xEF, 0xFE])
def test_damage_in_a_scan_that_looks_like_a_segment_is_not_removed(kind: str, marker: int) -> None:
    whole = IN_SCANS[kind]
    place = (whole.index(b"\xff\xda") + len(whole)) // 2
    for length in (b"\0\x20", b"\xff\xff"):
        data = whole[:place] + bytes((0xFF, marker)) + length + whole[place + 4 :]
        is_as_the_pipeline_has_it(data)


def test_scans_behind_a_reserved_marker_count_too() -> None:
    data = IN_SCANS["progressive, restarts"]
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    place = len(last_scan) // 2
    hiding = last_scan[:place] + b"\xff\x02\xff\xff" + last_scan[place:]
    assert "more than 60 scans" in sentence_of(data[:-2] + hiding + last_scan * 100 + data[-2:])


def test_xmp_behind_many_segments_of_exif_is_read() -> None:
    exif = segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0") + segment(0xE1, b"Exif\0\0" + b"x" * 100) * 8
    first, last = (
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP.replace(b"6", orientation))
        for orientation in (b"3", b"6")
    )
    data = JPEG[:2] + first + exif + last + JPEG[2:]
    assert pixels(data) == as_the_pipeline_opens(data) != pixels(JPEG)


def test_a_header_that_claims_two_billion_rows_does_not_raise_the_limit_of_parts() -> None:
    header = png_header(8, 2**31 - 1)
    assert code_of(header + chunk(b"abCd") * 400_000) == "undecodable"
    assert struct.unpack(">I", header[20:24]) == (2**31 - 1,)
