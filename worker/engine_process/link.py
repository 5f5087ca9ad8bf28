"""A front's connection to one engine process: handshake, shared memory, slots."""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from worker.engine_process import frames
from worker.engine_process.frames import Frame, Outbox, ProtocolError, frame, json_frame
from worker.engine_process.info import EngineInfo, info_from
from worker.engine_process.memory import SlotMemory
from worker.engine_process.requests import CountRequest, ImageRequest, PromptRequest, Request

#: An engine listens only once its model is ready, and completes the handshake at once unless it is frozen.
GREETING_S: Final = 10.0
#: Linux's ``struct ucred``: process id, user id and group id.
_UCRED: Final = struct.Struct("3i")


def ask_info(path: Path) -> EngineInfo:
    """Return the engine's description of its model; raise `OSError` while no engine listens, or `ProtocolError`."""
    with _connected(path) as connection:
        return _welcome(connection)


class Link:
    """A connection to one engine, which ends with that engine.

    The owner calls `send`, `cancel`, `free_slot` and `count_death` under one lock.

    Raises:
        OSError: no engine listens on the path.
        ProtocolError: the listener is not an engine process.
    """

    def __init__(self, path: Path, slots: int) -> None:
        self._connection = _connected(path)
        try:
            self.info = _welcome(self._connection)
            self._memory = self._receive_memory(slots)
            self._connection.settimeout(None)
        except BaseException:
            self._connection.close()
            raise
        self._free = list(reversed(range(slots)))
        #: Images that wait for a slot. All slots can be in use, because a cancelled image keeps its slot until the
        #: engine replies.
        self._without_slot = deque[ImageRequest]()
        self._slots: dict[int, int] = {}
        self._outbox = Outbox(self._connection, "engine-requests")

    def replies(self) -> Iterator[Frame]:
        """Yield the engine's frames until the engine ends; raise `OSError` or `ProtocolError`."""
        return frames.frames(self._connection, frames.MAX_REPLY_BYTES)

    def send(self, request: Request) -> None:
        """Send a request; an image without a free slot waits for one."""
        if isinstance(request, ImageRequest):
            if not self._free:
                self._without_slot.append(request)
                return
            slot = self._slots[request.number] = self._free.pop()
            self._memory.write(slot, request.layout, request.arrays)
            head = frames.IMAGE_HEAD.pack(slot, request.rank, request.deaths > 0)
            data = frame(frames.IMAGE, request.number, head + request.description)
        elif isinstance(request, PromptRequest):
            self._memory.mark(self._memory.prompt_mark(request.number), False)
            data = frame(
                frames.PROMPT, request.number, frames.PROMPT_HEAD.pack(request.deaths > 0) + request.prompt.encode()
            )
        elif isinstance(request, CountRequest):
            data = json_frame(frames.COUNT, request.number, request.prompts)
        else:
            raise AssertionError
        request.is_sent = True
        self._outbox.put(data)

    def cancel(self, request: Request) -> bool:
        """Cancel a request; return whether it was sent, so that the engine will reply to it."""
        if request.is_sent:
            self._outbox.put(frame(frames.CANCEL, request.number))
        elif isinstance(request, ImageRequest):
            with suppress(ValueError):
                self._without_slot.remove(request)
        return request.is_sent

    def free_slot(self, number: int) -> None:
        """Free the slot of the answered request, if it has one, and send the next image that waits for a slot."""
        if (slot := self._slots.pop(number, None)) is None:
            return
        self._free.append(slot)
        if self._without_slot:
            self.send(self._without_slot.popleft())

    def count_death(self, request: Request) -> bool:
        """Count the engine's death against a request; return whether the request has reached its maximum of deaths."""
        if request.is_sent:
            request.deaths += self._was_on_device(request)
        request.is_sent = False
        return request.deaths >= request.max_deaths

    def _was_on_device(self, request: Request) -> bool:
        if isinstance(request, ImageRequest):
            return self._memory.is_marked(self._slots[request.number])
        if isinstance(request, PromptRequest):
            return self._memory.is_marked(self._memory.prompt_mark(request.number))
        return True  # the engine may have been counting the tokens, which does not need the device

    def end(self) -> None:
        """Disconnect from the engine, which ends `replies`."""
        self._outbox.close()
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Disconnect and close the socket; call this in the thread that reads `replies`."""
        self.end()
        self._connection.close()

    def _receive_memory(self, slots: int) -> SlotMemory:
        self._connection.sendall(json_frame(frames.SLOTS, 0, slots))
        (kind, _, _), descriptor = frames.receive_with_descriptor(self._connection, frames.MAX_REPLY_BYTES)
        if descriptor is None:
            raise ProtocolError("the engine did not send the shared memory")
        try:
            if kind != frames.MEMORY:
                raise ProtocolError("the engine did not send the shared memory")
            return SlotMemory(descriptor, slots, self.info.slot_bytes)
        finally:
            os.close(descriptor)


def _connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(GREETING_S)
        connection.connect(str(path))
        _refuse_other_users(connection)
    except OSError:
        connection.close()
        raise
    return connection


def _refuse_other_users(connection: socket.socket) -> None:
    """Raise `PermissionError` if another user listens: the socket's folder may have been removed and taken over."""
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _, user, _ = _UCRED.unpack(peer)
    if user != os.geteuid():
        raise PermissionError(f"user {user} listens on the engine's socket")


def _welcome(connection: socket.socket) -> EngineInfo:
    kind, _, payload = frames.receive(connection, frames.MAX_REPLY_BYTES)
    if kind != frames.WELCOME:
        raise ProtocolError("the listener did not send an engine's greeting")
    return info_from(frames.from_json(payload))
