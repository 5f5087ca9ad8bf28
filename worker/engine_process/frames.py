"""The protocol between a front and its engine: fixed headers and short payloads, nothing executable.

The engine sends WELCOME (JSON, `worker.engine_process.info`); the front replies with SLOTS (JSON, the number of slots
that it needs); the engine sends MEMORY together with the memory's descriptor. From then on the front sends requests
under numbers that it chooses, and the engine sends exactly one reply to each: VECTOR, COUNTS, FAILED or DROPPED. CANCEL
and STATE have no reply. A hostile image may have taken over a front, so the engine validates everything it receives.
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

from worker.engine.batch_queue import BatchResult
from worker.model.interface import Float32
from worker.runtime.whole import receive_whole

#: A frame's header holds the payload's size in bytes, the kind and the request's number.
HEAD: Final = struct.Struct("<IBQ")

#: The front sends these kinds.
SLOTS, IMAGE, PROMPT, COUNT, CANCEL = range(1, 6)
#: The engine sends these kinds.
WELCOME, MEMORY, VECTOR, COUNTS, FAILED, DROPPED, STATE = range(17, 24)

#: IMAGE holds the slot, the queue's index in `producer.contract.names.QUEUES` and whether the image runs alone; the
#: description of the image's arrays follows.
IMAGE_HEAD: Final = struct.Struct("<HB?")
#: PROMPT holds whether the prompt runs alone; its text follows.
PROMPT_HEAD: Final = struct.Struct("<?")
#: VECTOR holds the `BatchResult`'s batch_size, wait_ms and run_ms, and the number of axes; the axes' lengths and the
#: float32 values follow.
VECTOR_HEAD: Final = struct.Struct("<IddB")
#: STATE holds the fields of `State`.
STATE_FRAME: Final = struct.Struct("<IdIdd")

#: COUNT with 512 prompts (`worker.embeddings.reading.MAX_REQUESTED`) of 700 characters has 1.4 MB; all other requests
#: are small.
MAX_REQUEST_BYTES: Final = 4 << 20
#: This is a thousand times the size of the largest vector of any family.
MAX_REPLY_BYTES: Final = 64 << 20
_CHUNK_BYTES: Final = 1 << 18

Frame = tuple[int, int, bytes]


class State(NamedTuple):
    """The state of an engine's device; see the properties of `worker.engine.interface.Engine`."""

    waiting: int = 0
    busy_s: float = 0.0
    batch_limit: int = 0
    fixed_s: float = 0.0
    item_s: float = 0.0


class ProtocolError(Exception):
    """The peer broke the protocol, so its connection ends. The text says how, and never quotes what the peer sent."""


def frame(kind: int, number: int = 0, payload: bytes = b"") -> bytes:
    """Return the bytes of a frame."""
    return HEAD.pack(len(payload), kind, number) + payload


def json_frame(kind: int, number: int, value: object) -> bytes:
    """Return the bytes of a frame whose payload is this value as JSON."""
    return frame(kind, number, json.dumps(value, ensure_ascii=False).encode())


def from_json(payload: bytes) -> Any:
    """Parse a JSON payload; raise `ProtocolError` if it is malformed."""
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        raise ProtocolError("a payload is not JSON") from None


def vector_frame(number: int, result: BatchResult[Float32]) -> bytes:
    """Return the VECTOR frame for an embedding and for the size and times of its batch."""
    shape = result.output.shape
    head = VECTOR_HEAD.pack(result.batch_size, result.wait_ms, result.run_ms, len(shape))
    return frame(VECTOR, number, head + struct.pack(f"<{len(shape)}I", *shape) + result.output.tobytes())


def vector_in(payload: bytes) -> BatchResult[Float32]:
    """Parse the payload of a VECTOR frame."""
    batch_size, wait_ms, run_ms, axes = VECTOR_HEAD.unpack_from(payload)
    shape = struct.unpack_from(f"<{axes}I", payload, VECTOR_HEAD.size)
    values = np.frombuffer(payload, np.float32, offset=VECTOR_HEAD.size + 4 * axes)
    # The values are copied, because the payload's bytes are read-only and unaligned.
    return BatchResult(values.reshape(shape).copy(), batch_size, wait_ms, run_ms)


def frames(connection: socket.socket, most_bytes: int) -> Iterator[Frame]:
    """Yield kind, number and payload of each frame until the connection ends; raise `ProtocolError` or `OSError`."""
    received = bytearray()
    while chunk := connection.recv(_CHUNK_BYTES):
        received += chunk
        start = 0
        while len(received) - start >= HEAD.size:
            size, kind, number = HEAD.unpack_from(received, start)
            if size > most_bytes:
                raise ProtocolError(f"a frame has {size} bytes")
            begin, start = start, start + HEAD.size + size
            if start > len(received):
                start = begin
                break
            yield kind, number, bytes(received[begin + HEAD.size : start])
        del received[:start]


def receive(connection: socket.socket, most_bytes: int) -> Frame:
    """Receive one frame and not a byte more; raise `ProtocolError` or `OSError`."""
    return _rest(connection, receive_whole(HEAD.size, connection.recv_into), most_bytes)


def receive_with_descriptor(connection: socket.socket, most_bytes: int) -> tuple[Frame, int | None]:
    """Receive one frame and the descriptor sent with it, if any; raise `ProtocolError` or `OSError`."""
    # The kernel delivers descriptors with the first byte of the data that they were sent with.
    head, found, _, _ = socket.recv_fds(connection, HEAD.size, 1)
    if not head:
        raise ConnectionResetError("the peer has closed the connection")
    read = _rest(connection, head + receive_whole(HEAD.size - len(head), connection.recv_into), most_bytes)
    return read, found[0] if found else None


def _rest(connection: socket.socket, head: bytes | bytearray, most_bytes: int) -> Frame:
    size, kind, number = HEAD.unpack(head)
    if size > most_bytes:
        raise ProtocolError(f"a frame has {size} bytes")
    return kind, number, bytes(receive_whole(size, connection.recv_into))


class Outbox:
    """Sends frames in order from a thread of its own, so that no other thread waits for the peer to read.

    Args:
        sent: called after each send with the number of frames in it that were queued with ``counts``, even if they were
            lost with the connection.
    """

    def __init__(
        self, connection: socket.socket, name: str, sent: Callable[[int], object] = lambda _count: None
    ) -> None:
        self._connection = connection
        self._sent = sent
        self._frames: SimpleQueue[tuple[bytes, bool] | None] = SimpleQueue()
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    def put(self, data: bytes, *, counts: bool = False) -> None:
        """Queue a frame for sending. The frame is lost if the connection ends, which the reading thread handles."""
        self._frames.put((data, counts))

    def close(self) -> None:
        """Send the queued frames, then end the thread."""
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
