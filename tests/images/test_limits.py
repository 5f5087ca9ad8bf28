"""Which images are refused, with which code, and at which cost in time and memory."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import time
from typing import Any

import pytest
from PIL import Image, ImageFile

from producer.errors import JobFailed
from tests.images.conftest import code_of, sentence_of
from tests.images.corpus import AVIF, BOMBS, DAMAGED, FOREIGN, GIF, HEIC, JPEG, PNG, SLOW, THIN, WEBP
from tests.images.files import encoded, flat_png, many_frames
from worker.decoding.images import open_image, prepare_pillow


@pytest.mark.parametrize("name", FOREIGN)
def test_other_formats_are_unsupported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: Any, **__: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", started)
    assert code_of(FOREIGN[name]) == "unsupported_format"


def test_without_pillow_heif_heic_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.decoding.images.register_heif", lambda: False)

    assert code_of(HEIC) == "unsupported_format"
    assert code_of(AVIF) == "ok"


def test_a_file_without_bytes_has_the_code_empty() -> None:
    assert code_of(b"") == "empty"


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_images_are_undecodable(name: str) -> None:
    assert code_of(DAMAGED[name]) == "undecodable"


@pytest.mark.parametrize("name", BOMBS)
def test_decompression_bombs_are_refused_quickly_by_their_headers(name: str) -> None:
    started_s = time.thread_time()
    assert code_of(BOMBS[name]) == "too_many_pixels"
    assert time.thread_time() - started_s < 0.5


def test_an_image_with_exactly_the_maximum_of_pixels_is_accepted() -> None:
    data = flat_png(200, 100)
    assert code_of(data, max_pixels=20_000) == "ok"
    assert code_of(data, max_pixels=19_999) == "too_many_pixels"


@pytest.mark.parametrize("name", THIN)
def test_thin_images_are_refused_because_resizing_would_enlarge_them_too_much(name: str) -> None:
    assert code_of(THIN[name]) == "bad_aspect_ratio"


@pytest.mark.parametrize("size", [(30, 1), (1, 30), (300, 10), (1, 1)])
def test_an_aspect_ratio_of_thirty_to_one_is_accepted(size: tuple[int, int]) -> None:
    assert code_of(flat_png(*size)) == "ok"


def test_opening_an_image_reads_only_the_header_and_tells_how_much_memory_decoding_needs() -> None:
    opened = open_image(flat_png(5_000, 5_000), max_pixels=50_000_000)
    assert opened.memory_bytes == 25_000_000 * 9
    # Damage of the pixels shows only when they are decoded.
    damaged = open_image(DAMAGED["JPEG, half"], max_pixels=50_000_000)
    assert damaged.memory_bytes == 160 * 120 * 12


@pytest.mark.parametrize(
    "data", [AVIF + b"x", JPEG + b"PK\3\4", PNG + b"<?php ?>", GIF + b"<script>", WEBP + b"x"], ids=repr
)
def test_bytes_after_an_image_are_ignored(data: bytes) -> None:
    assert code_of(data) == "ok"


@pytest.mark.parametrize("name", SLOW)
def test_files_that_are_made_to_be_slow_to_parse_take_little_time(name: str) -> None:
    started_s = time.thread_time()
    code_of(SLOW[name])
    assert time.thread_time() - started_s < 1.5


def test_a_progressive_jpeg_of_hundreds_of_scans_is_refused_in_bounded_time() -> None:
    data = encoded(Image.new("L", (2_000, 2_000)), "JPEG", progressive=True)
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    assert code_of(data) == "ok"
    started_s = time.thread_time()
    assert "more than 60 scans" in sentence_of(data[:-2] + last_scan * 500 + data[-2:])
    assert "more than 60 scans" in sentence_of(data[:-2] + last_scan * 1_000_000 + data[-2:])
    assert time.thread_time() - started_s < 1.5


@pytest.mark.parametrize(
    ("side", "scans", "is_refused"), [(1_000, 18, False), (1_000, 19, True), (500, 60, False), (500, 61, True)]
)
def test_the_larger_a_jpeg_is_the_fewer_scans_it_may_have(side: int, scans: int, is_refused: bool) -> None:
    data = encoded(Image.new("L", (side, side)), "JPEG", progressive=True)
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    data = data[:-2] + last_scan * (scans - data.count(b"\xff\xda")) + data[-2:]

    sentence = sentence_of(data, max_pixels=1_000_000)
    assert ("too many for its size" in sentence) is is_refused, sentence


def test_a_progressive_cmyk_jpeg_may_have_the_maximum_of_pixels() -> None:
    data = encoded(Image.new("CMYK", (1_000, 1_000)), "JPEG", progressive=True)

    assert data.count(b"\xff\xda") == 18
    assert open_image(data, max_pixels=1_000_000).decode().width == 1_000


def test_a_jpeg_with_many_scans_and_too_many_pixels_is_refused_for_its_pixels() -> None:
    data = encoded(Image.new("CMYK", (1_010, 1_000)), "JPEG", progressive=True)

    assert sentence_of(data, max_pixels=1_000_000) == JobFailed("too_many_pixels").message


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("JPEG, half", "ends before the image does; upload the whole file"),
        ("PNG, half", "ends before the image does"),
        ("GIF, half", "ends before the image does"),
        ("PNG, flipped bit in the data", "the image is damaged; upload it again"),
        ("PNG, impossible depth", "header is damaged or of a rare kind"),
        ("PNG, no width", "header is damaged or of a rare kind"),
    ],
)
def test_the_failure_of_a_damaged_image_says_why(name: str, part: str) -> None:
    assert part in sentence_of(DAMAGED[name])


def test_the_failure_of_an_image_of_too_many_tiny_parts_says_so() -> None:
    assert "too many small parts" in sentence_of(SLOW["PNG of empty chunks"])


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_decoding_the_first_of_ten_thousand_frames_takes_as_long_as_a_single_frame(kind: str) -> None:
    data = many_frames(kind, 10_000)
    with Image.open(io.BytesIO(data)) as file:
        assert getattr(file, "n_frames", 1) == 10_000
    started_s = time.thread_time()
    decoded = open_image(data, max_pixels=50_000_000).decode()
    assert time.thread_time() - started_s < 0.5
    red, green, blue = decoded.image.getpixel((4, 4))  # type: ignore[misc]
    assert red > 250
    assert max(green, blue) < 5


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError("CANARY"), "out_of_memory"),
        (Image.DecompressionBombError("CANARY"), "too_many_pixels"),
        (struct.error("CANARY"), "undecodable"),
        (OverflowError("CANARY"), "undecodable"),
        (RecursionError("CANARY"), "undecodable"),
        (SyntaxError("CANARY"), "undecodable"),
        (OSError("CANARY"), "undecodable"),
        (KeyError("CANARY"), "undecodable"),
        (ZeroDivisionError("CANARY"), "undecodable"),
        (UserWarning("CANARY"), "undecodable"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("stage", ["load", "convert"])
def test_any_error_of_a_decoder_becomes_a_failure_without_the_error_s_text(
    error: Exception, code: str, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(ImageFile.ImageFile if stage == "load" else Image.Image, stage, broken)
    with pytest.raises(JobFailed) as caught:
        open_image(GIF, max_pixels=50_000_000).decode()
    assert caught.value.code == code
    assert caught.value.retryable == (code == "out_of_memory")
    assert "CANARY" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "original", [JPEG, PNG, GIF, WEBP, AVIF, HEIC], ids=["JPEG", "PNG", "GIF", "WebP", "AVIF", "HEIC"]
)
def test_mutated_images_give_an_image_or_a_failure_with_a_known_code(original: bytes) -> None:
    shuffle = random.Random(11)
    codes = set()
    for _ in range(150):
        data = bytearray(original)
        for _ in range(shuffle.choice((1, 3, 30))):
            data[shuffle.randrange(len(data))] = shuffle.randrange(256)
        codes.add(code_of(bytes(data[: shuffle.choice((len(data), shuffle.randrange(len(data)) + 1))]), 1_000_000))
    assert codes <= {"ok", "undecodable", "unsupported_format", "too_many_pixels", "bad_aspect_ratio"}
    assert len(codes) > 1


def test_a_worker_refuses_a_pillow_that_is_set_to_accept_truncated_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(RuntimeError, match="LOAD_TRUNCATED_IMAGES"):
        prepare_pillow(50_000_000)
