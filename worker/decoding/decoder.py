"""The worker's side of one decoder process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from producer.processes.kernel_status import cpu_s
from worker.concurrency.cancel_scope import CancelScope
from worker.decoding.confinement import CPU_S_PER_IMAGE
from worker.decoding.images import BYTES_PER_PIXEL, FORMATS, Decoded, refusal
from worker.decoding.protocol import ANSWER, DECODE, HELLO, MAGIC, OPEN, OUTCOMES, REQUEST
from worker.model.geometry import Geometry
from worker.model.interface import Prepared
from worker.model.pixels import prepared
from worker.runtime.whole import receive_whole, send_whole

#: The program of a decoder, which imports the worker's own modules from the worker's module path.
PROGRAM: Final = """\
import sys
sys.path[:] = sys.argv.pop().split("\\n")
from worker.decoding.child import main
main(sys.argv[1:])
"""


class DecoderLost(Exception):
    """The process ended or broke the protocol, so its image is not decoded and the next image needs another process."""


class DecoderInterrupted(Exception):
    """The process was suspended or ended from outside, so its image is not to blame."""


#: A decoder that neither reads nor sends for twice this long, and uses no CPU in the second half, is frozen. Decoding
#: uses CPU all the time, and if the machine gives a process no CPU for this long, the image would be late anyway.
SILENT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class DecoderOptions:
    """The options of every decoder process of a worker.

    Attributes:
        max_pixels: the most pixels of one image.
        max_bytes: the most bytes of one file.
        geometry: the resize and crop that the process applies to images; with None it returns RGB images.
        cpu_s: the CPU seconds that one image may use.
        program: the process's Python code; its last argument is the worker's module path.
    """

    max_pixels: int
    max_bytes: int
    geometry: Geometry | None
    cpu_s: int = CPU_S_PER_IMAGE
    program: str = PROGRAM

    def as_json(self) -> str:
        """Return the second argument of `worker.decoding.child.main`."""
        return json.dumps(
            {
                "max_pixels": self.max_pixels,
                "cpu_s": self.cpu_s,
                # The process holds the file; Pillow, the image decoder and the search for metadata copy it.
                "memory_bytes": max(BYTES_PER_PIXEL.values()) * self.max_pixels + 4 * self.max_bytes,
                "geometry": None if self.geometry is None else asdict(self.geometry),
            }
        )


@dataclass(frozen=True, slots=True)
class PreparedPicture:
    """An image ready for a batch.

    Attributes:
        width: width of the decoded, upright image in pixels.
        height: height of that image in pixels.
        format: one of `worker.decoding.images.FORMATS`.
    """

    prepared: Prepared
    width: int
    height: int
    format: str


class DecoderProcess:
    """A decoder process, which decodes one image at a time. Only `kill` may be called while another call runs.

    Create it in a thread that lives as long as the worker, because Linux kills a decoder when the thread that started
    it ends.
    """

    def __init__(self, options: DecoderOptions) -> None:
        self._options = options
        self.filters_system_calls = False
        #: Whether the process waits for a request.
        self.is_idle = False
        self._has_started = False
        self._socket, theirs = socket.socketpair()
        # While Celery reconnects or shuts down, each new socket of this process has a timeout, so it is non-blocking.
        # A decoder with such a socket would get an error instead of waiting for a request, and end.
        theirs.setblocking(True)
        path = "\n".join(str(Path(entry).absolute()) for entry in sys.path)
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - the command is ours
                    [sys.executable, "-I", "-S", "-c", options.program, str(os.getpid()), options.as_json(), path],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    # An untrusted file could make the decoder write to the worker's log.
                    stderr=subprocess.DEVNULL,
                    # Without this variable, numpy starts a thread for each core.
                    env={"OPENBLAS_NUM_THREADS": "1"},
                    start_new_session=True,
                )
        except OSError:
            self._socket.close()
            raise

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def greet(self, scope: CancelScope) -> None:
        """Wait until the process is ready.

        Raises:
            DecoderLost: the process ended or broke the protocol.
            TimeoutError: the scope has ended.
        """
        magic, self.filters_system_calls = HELLO.unpack(self._receive(HELLO.size, scope))
        if magic != MAGIC:
            raise DecoderLost
        self.is_idle = self._has_started = True

    def open(self, data: bytes, scope: CancelScope) -> int:
        """Send a file and return the most bytes of memory that decoding it takes.

        Raises:
            JobFailed: the image is refused.
            DecoderLost: the process ended or broke the protocol.
            DecoderInterrupted: the process was suspended.
            TimeoutError: the scope has ended.
        """
        self._ask(REQUEST.pack(OPEN, len(data)), scope, data)
        memory_bytes: int = self._answer(scope)[4]
        if not 0 < memory_bytes <= max(BYTES_PER_PIXEL.values()) * self._options.max_pixels:
            raise DecoderLost
        self.is_idle = True
        return memory_bytes

    def decode(self, scope: CancelScope) -> PreparedPicture | Decoded:
        """Decode the opened file, and prepare it if the options have a geometry; raise as `open` does."""
        self._ask(REQUEST.pack(DECODE, 0), scope)
        _, format_number, width, height, size_bytes, named, *colour = self._answer(scope)
        # The process may be compromised, so every number is validated.
        if format_number >= len(FORMATS) or not 0 < width * height <= self._options.max_pixels:
            raise DecoderLost
        geometry = self._options.geometry
        shape = (height, width, 3) if geometry is None else geometry.shape(width, height)
        if size_bytes != shape[0] * shape[1] * shape[2]:
            raise DecoderLost
        pixels = np.frombuffer(self._receive(size_bytes, scope), np.uint8).reshape(shape)
        self.is_idle = True
        if geometry is not None:
            return PreparedPicture(prepared(pixels), width, height, FORMATS[format_number])
        image = Image.fromarray(pixels)
        if named:
            image.info["transparency"] = tuple(colour)
        return Decoded(image, width, height, FORMATS[format_number])

    def is_running(self) -> bool:
        """Return whether the process has not ended yet."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill the process; a call in another thread that waits for it raises `DecoderLost`."""
        self._process.kill()

    def end(self, grace_s: float = 0.0) -> int:
        """End and reap the process; return its exit status in the form of `subprocess`.

        Args:
            grace_s: how long the process may take to end by itself, and so with its own status.
        """
        self._socket.close()
        if grace_s:
            with suppress(subprocess.TimeoutExpired):
                return self._process.wait(grace_s)
        self._process.kill()
        return self._process.wait()

    def _ask(self, head: bytes, scope: CancelScope, data: bytes = b"") -> None:
        self.is_idle = False
        for part in (head, data):
            send_whole(part, lambda left: self._transfer(partial(self._socket.send, left), scope))

    def _answer(self, scope: CancelScope) -> tuple[int, ...]:
        """Receive an `ANSWER` and return its fields, or raise the refusal that it holds."""
        answer: tuple[int, ...] = ANSWER.unpack(self._receive(ANSWER.size, scope))
        outcome = answer[0]
        if outcome >= len(OUTCOMES):
            raise DecoderLost
        if outcome:
            self.is_idle = True
            raise refusal(OUTCOMES[outcome])
        return answer

    def _receive(self, size: int, scope: CancelScope) -> bytearray:
        return receive_whole(size, lambda left: self._transfer(partial(self._socket.recv_into, left), scope))

    def _transfer(self, move: Callable[[], int], scope: CancelScope) -> int:
        """Send or receive at least one byte and return the number of bytes."""
        used_s: float | None = None
        while True:
            left_s = scope.left_s
            if not left_s:
                raise TimeoutError
            self._socket.settimeout(min(SILENT_S, left_s))
            try:
                count = move()
            except TimeoutError:
                before_s, used_s = used_s, cpu_s(self.pid)
                # A process that is still starting may wait for a disk and use no CPU.
                if self._has_started and used_s is not None and used_s == before_s and not scope.is_over:
                    raise DecoderInterrupted from None
                continue
            except OSError:
                count = 0
            if not count:
                raise DecoderLost
            return count
