"""A decoder process, in which Pillow's native code decodes untrusted images.

`worker.decoding.decoder` starts the process with one socket and a nearly empty environment. The process serves one
request at a time.
"""

from __future__ import annotations

import gc
import io
import json
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Final, NoReturn

import numpy as np
from PIL import AvifImagePlugin, Image

from producer.errors import JobFailed
from producer.processes.leash import die_with
from worker.decoding import confinement
from worker.decoding.heif import register_heif
from worker.decoding.images import FORMATS, Decoded, UndecodedImage, open_image, prepare_pillow, reason_of
from worker.decoding.protocol import ANSWER, DECODE, ENDED_BY_ITS_IMAGE, HELLO, MAGIC, OPEN, OUTCOMES, REQUEST
from worker.model.geometry import Geometry, geometry_of
from worker.runtime.allocator import bound_malloc
from worker.runtime.whole import receive_whole, send_whole

#: The process sends an RGB image this many rows at a time, so that a large image is not in memory twice.
_ROWS: Final = 64
_SOCKET: Final = 0


def main(arguments: Sequence[str]) -> NoReturn:
    """Confine this process, then serve requests until the worker closes the socket.

    Args:
        arguments: the worker's process id, and a JSON object with ``max_pixels``, ``memory_bytes``, ``cpu_s`` and
            ``geometry`` (the ``asdict`` of a `Geometry`, or null).
    """
    parent, options = int(arguments[0]), json.loads(arguments[1])
    # Ignore all other signals: a supervisor may send one to all processes of a service while jobs still need this one.
    for number in signal.valid_signals() - ENDED_BY_ITS_IMAGE - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        die_with(parent, signal.SIGKILL)
    warnings.simplefilter("ignore")  # Python would open source files to show a warning
    bound_malloc()
    prepare_pillow(options["max_pixels"])
    geometry = geometry_of(options["geometry"])
    warm_up(geometry)
    filtered = confinement.confine(options["memory_bytes"], threads=register_heif())
    _send(HELLO.pack(MAGIC, filtered))
    serve(options["max_pixels"], options["cpu_s"], geometry)


def serve(max_pixels: int, cpu_s: int, geometry: Geometry | None) -> NoReturn:
    """Serve requests until the worker closes the socket."""
    opened: UndecodedImage | None = None
    while True:
        kind, size = REQUEST.unpack(_receive(REQUEST.size))
        try:
            if kind == OPEN:
                confinement.renew_cpu_time(cpu_s)
                opened = None
                opened = open_image(_receive(size), max_pixels=max_pixels)
                _answer("ok", number=opened.memory_bytes)
            elif kind == DECODE and opened is not None:
                file, opened = opened, None
                _answer_pixels(file.decode(geometry.least_side if geometry else None), geometry)
        except JobFailed as failure:
            _answer(reason_of(failure))
        except MemoryError:
            _answer("out_of_memory")
        except ValueError:  # Pillow cannot create an image of the geometry's size
            _answer("model_error")


def _answer_pixels(decoded: Decoded, geometry: Geometry | None) -> None:
    image = decoded.image
    format_number, width, height = FORMATS.index(decoded.format), decoded.width, decoded.height
    if geometry is not None:
        pixels = geometry.apply(image, width, height)
        _answer("ok", format_number, width, height, pixels.nbytes)
        _send(np.ascontiguousarray(pixels).data.cast("B"))
        return
    colour = image.info.get("transparency")
    named = isinstance(colour, tuple) and len(colour) == 3
    _answer("ok", format_number, width, height, width * height * 3, colour if named else None)
    for top in range(0, height, _ROWS):
        _send(image.crop((0, top, width, min(height, top + _ROWS))).tobytes())


def _answer(
    outcome: str,
    format_number: int = 0,
    width: int = 0,
    height: int = 0,
    number: int = 0,
    colour: tuple[int, int, int] | None = None,
) -> None:
    known = OUTCOMES.index(outcome)
    _send(ANSWER.pack(known, format_number, width, height, number, colour is not None, *(colour or (0, 0, 0))))


def _send(data: bytes | memoryview) -> None:
    send_whole(data, partial(os.write, _SOCKET))


def _receive(size: int) -> bytes:
    """Receive exactly ``size`` bytes; end this process if the worker has closed the socket."""
    try:
        return bytes(receive_whole(size, lambda left: os.readv(_SOCKET, [left])))
    except ConnectionResetError:
        os._exit(0)


def warm_up(geometry: Geometry | None) -> None:
    """Decode images of each kind, because Pillow imports modules on first use and `confine` forbids opening files."""
    picture = Image.effect_noise((48, 40), 60).convert("RGB")
    turned = Image.Exif()
    turned[0x0112] = 6
    for image, kind, options in (
        (picture, "JPEG", {"exif": turned.tobytes()}),
        (picture, "JPEG", {"progressive": True}),
        (picture.convert("CMYK"), "JPEG", {}),
        (picture, "PNG", {"exif": turned.tobytes(), "transparency": (1, 2, 3)}),
        (picture.quantize(4), "PNG", {"transparency": 1}),
        (Image.new("I;16", (48, 40), 40_000), "PNG", {}),
        (picture, "GIF", {}),
        (picture.convert("RGBA"), "WEBP", {"lossless": True}),
        (picture, "WEBP", {"exif": turned.tobytes()}),
        *([(picture, "AVIF", {"exif": turned.tobytes()})] if AvifImagePlugin.SUPPORTED else ()),
        *([(picture, "HEIF", {"exif": turned.tobytes()})] if register_heif() else ()),
    ):
        file = io.BytesIO()
        image.save(file, kind, **options)
        for data in (file.getvalue(), file.getvalue()[:-40], file.getvalue()[:40], b"foreign"):
            with suppress(JobFailed):
                upright = open_image(data, max_pixels=10_000).decode(8).image
                (geometry or Geometry(8, Image.Resampling.BICUBIC, (8, 8))).apply(upright)
    gc.collect()
