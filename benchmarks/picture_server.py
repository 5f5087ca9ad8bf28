"""Serves pictures over HTTP from a separate process, so that serving them costs the measured processes little."""

from __future__ import annotations

import argparse
import asyncio
import io
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import numpy as np
from PIL import Image

#: The usual size of pictures from a phone's gallery or a web shop.
SIZE = (640, 480)
#: The width of a cell of random colour. With this width, 640x480 pixels compress to about 100 KB, like a photograph.
CELL_PX = 16 / 3
JPEG_QUALITY = 90


def picture(seed: int, size: tuple[int, int] = SIZE) -> bytes:
    """Return a JPEG of this width and height, with about 0.4 bytes per pixel; it differs for each seed."""
    width, height = (round(pixels / CELL_PX) for pixels in size)
    cells = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


@contextmanager
def picture_server(count: int) -> Iterator[int]:
    """Serve ``/0.jpg`` to ``/<count-1>.jpg`` on the loopback interface; yield the port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.picture_server", "--port", str(port), "--count", str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            if process.stdout is None or not process.stdout.readline():
                raise RuntimeError("the picture server did not start")
            yield port
        finally:
            process.terminate()


def main() -> None:
    """Serve until terminated."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.port, [picture(seed) for seed in range(arguments.count)]))


async def serve(port: int, pictures: Sequence[bytes]) -> None:
    """Respond to GETs on kept connections with little work, because the server shares the measured machine."""
    answers = [
        b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b" % (len(one), one)
        for one in pictures
    ]
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(answers), "127.0.0.1", port, backlog=256)
    print("ready", flush=True)
    await server.serve_forever()


class _Connection(asyncio.Protocol):
    """A client's connection; clients request only pictures that exist, one at a time."""

    def __init__(self, answers: Sequence[bytes]) -> None:
        self._answers = answers
        self._asked = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._asked += data
        if self._asked.endswith(b"\r\n\r\n"):
            number = int(self._asked.removeprefix(b"GET /").partition(b".")[0])
            self._asked = b""
            self._transport.write(self._answers[number % len(self._answers)])


if __name__ == "__main__":
    main()
