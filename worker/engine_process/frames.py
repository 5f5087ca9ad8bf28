"""What a front and its engine say to each other: fixed heads and short payloads, nothing that is executed.

The engine opens with WELCOME (JSON, `worker.engine_process.terms`); the front answers with FURNISH (JSON, the slots it
wants); the engine sends MEMORY, and with it the descriptor. From then on each request has a number of the front's,
and gets exactly one of VECTOR, COUNTS, FAILED and DROPPED. A front may have been taken over by what it fetched: the
engine believes nothing before it fits.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.engine.batcher import BatchResult

#: Bytes of payload, kind, number of the request.
HEAD: Final = struct.Struct("<IBQ")

#: From the front.
FURNISH, IMAGE, PROMPT, COUNT, CANCEL = range(1, 6)
#: From the engine.
WELCOME, MEMORY, VECTOR, COUNTS, FAILED, DROPPED, STATE = range(17, 24)

#: Slot, queue (its place in `producer.contract.QUEUES`), whether it rides alone; the layout of its arrays follows.
IMAGE_HEAD: Final = struct.Struct("<HB?")
#: Whether it rides alone; the text follows.
PROMPT_HEAD: Final = struct.Struct("<?")
#: Batch size, ms of waiting, ms of running, number of axes; their lengths and float32 values follow.
VECTOR_HEAD: Final = struct.Struct("<IddB")
#: The fields of `State`.
STATE_FRAME: Final = struct.Struct("<IdIdd")

#: 512 prompts (`worker.embeddings.of_labels.MAX_ASKED`) of 700 characters have 1.4 MB; whatever else is sent is small.
MAX_REQUEST_BYTES: Final = 4 << 20
#: A thousand times the largest vector of any family.
MAX_ANSWER_BYTES: Final = 64 << 20
_CHUNK_BYTES: Final = 1 << 18

Array = NDArray[np.float32]
Frame = tuple[int, int, bytes]


class State(NamedTuple):
    """How an engine's device is; see the properties of `worker.engine.interface.Engine`."""

    waiting: int = 0
    busy_s: float = 0.0
    batch_limit: int = 0
    fixed_s: float = 0.0
    item_s: float = 0.0


class ProtocolError(Exception):
    """The other side said what cannot be: nothing more of it is read. The text names the fault, never the content."""


def frame(kind: int, number: int = 0, payload: bytes = b"") -> bytes:
    """A frame as it is sent."""
    return HEAD.pack(len(payload), kind, number) + payload


def json_frame(kind: int, number: int, value: object) -> bytes:
    """One whose payload is JSON."""
    return frame(kind, number, json.dumps(value, ensure_ascii=False).encode())


def from_json(payload: bytes) -> Any:
    """What a payload says; raises `ProtocolError`."""
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        raise ProtocolError("no JSON") from None


def vector_frame(number: int, ride: BatchResult[Array]) -> bytes:
    """An embedding, and the ride it had."""
    shape = ride.output.shape
    head = VECTOR_HEAD.pack(ride.batch_size, ride.wait_ms, ride.run_ms, len(shape))
    return frame(VECTOR, number, head + struct.pack(f"<{len(shape)}I", *shape) + ride.output.tobytes())


def ride_in(payload: bytes) -> BatchResult[Array]:
    """What `vector_frame` made a frame of."""
    batch_size, wait_ms, run_ms, axes = VECTOR_HEAD.unpack_from(payload)
    shape = struct.unpack_from(f"<{axes}I", payload, VECTOR_HEAD.size)
    values = np.frombuffer(payload, np.float32, offset=VECTOR_HEAD.size + 4 * axes)
    # A copy: the answer's bytes are read-only and not aligned.
    return BatchResult(values.reshape(shape).copy(), batch_size, wait_ms, run_ms)


def frames(connection: socket.socket, most_bytes: int) -> Iterator[Frame]:
    """Kind, number and payload of each frame until the connection ends; raises `ProtocolError` and `OSError`."""
    received = bytearray()
    while chunk := connection.recv(_CHUNK_BYTES):
        received += chunk
        start = 0
        while len(received) - start >= HEAD.size:
            size, kind, number = HEAD.unpack_from(received, start)
            if size > most_bytes:
                raise ProtocolError(f"a frame of {size} bytes")
            begin, start = start, start + HEAD.size + size
            if start > len(received):
                start = begin
                break
            yield kind, number, bytes(received[begin + HEAD.size : start])
        del received[:start]


def receive(connection: socket.socket, most_bytes: int) -> Frame:
    """One frame and not a byte more; raises `ProtocolError` and `OSError`."""
    return _rest(connection, _exactly(connection, HEAD.size), most_bytes)


def receive_with_descriptor(connection: socket.socket, most_bytes: int) -> tuple[Frame, int | None]:
    """The same, and a descriptor that came with it."""
    # Descriptors arrive with the first byte of what was sent with them.
    head, found, _, _ = socket.recv_fds(connection, HEAD.size, 1)
    if not head:
        raise ConnectionResetError("the other side has ended")
    read = _rest(connection, head + _exactly(connection, HEAD.size - len(head)), most_bytes)
    return read, found[0] if found else None


def _rest(connection: socket.socket, head: bytes, most_bytes: int) -> Frame:
    size, kind, number = HEAD.unpack(head)
    if size > most_bytes:
        raise ProtocolError(f"a frame of {size} bytes")
    return kind, number, _exactly(connection, size)


def _exactly(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        chunk = connection.recv(size - len(received))
        if not chunk:
            raise ConnectionResetError("the other side has ended")
        received += chunk
    return bytes(received)


class Outbox:
    """Sends frames from a thread of its own, so that nobody else waits for the other side to read; in order.

    Args:
        sent: told how many frames were sent, or lost with the connection, that were put in with `counts`.
    """

    def __init__(
        self, connection: socket.socket, name: str, sent: Callable[[int], object] = lambda _count: None
    ) -> None:
        self._connection = connection
        self._sent = sent
        self._frames: SimpleQueue[tuple[bytes, bool] | None] = SimpleQueue()
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    def put(self, data: bytes, *, counts: bool = False) -> None:
        """Send it soon; where the connection has ended it is lost, which whoever reads from it finds out."""
        self._frames.put((data, counts))

    def close(self) -> None:
        """Send what was put in, and end."""
        self._frames.put(None)

    def _serve(self) -> None:
        ends = False
        while not ends and (first := self._frames.get()) is not None:
            batch = [first]
            size = len(first[0])
            with suppress(Empty):
                while size < _CHUNK_BYTES:
                    if (more := self._frames.get_nowait()) is None:
                        ends = True
                        break
                    batch.append(more)
                    size += len(more[0])
            with suppress(OSError):
                self._connection.sendall(b"".join(data for data, _ in batch))
            self._sent(sum(counts for _, counts in batch))
