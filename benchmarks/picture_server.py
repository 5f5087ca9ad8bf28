"""Pictures over HTTP from a process of its own, so that serving them costs the measured processes nothing."""

from __future__ import annotations

import argparse
import io
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

#: What a phone's gallery or a web shop serves after its own resize.
SIZE = (640, 480)
#: Pixels that a cell of random colour is wide, scaled up: 640x480 compress to about 100 KB, like a photograph.
CELL_PX = 16 / 3
JPEG_QUALITY = 90


def picture(seed: int, size: tuple[int, int] = SIZE) -> bytes:
    """A JPEG of so many pixels across and down, about 0.4 bytes each, different for each seed."""
    width, height = (round(pixels / CELL_PX) for pixels in size)
    cells = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


@contextmanager
def picture_server(count: int) -> Iterator[int]:
    """Serve ``/0.jpg`` to ``/<count-1>.jpg`` on loopback; yields the port."""
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
    pictures = [picture(seed) for seed in range(arguments.count)]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = pictures[int(self.path[1:].partition(".")[0]) % len(pictures)]
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the inherited name
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 256
        daemon_threads = True

    with Server(("127.0.0.1", arguments.port), Handler) as server:
        print("ready", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
