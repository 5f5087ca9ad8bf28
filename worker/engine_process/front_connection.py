"""The engine's side of the connection to one front."""

from __future__ import annotations

import logging
import math
import socket
import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any, Final

from producer.contract.names import QUEUES
from worker.concurrency.cancel_scope import CancelScope
from worker.engine.failures import failure_of
from worker.engine.local import LocalEngine
from worker.engine_process import frames
from worker.engine_process.device_use import ImageInSlot, PromptOfFront
from worker.engine_process.frames import Outbox, ProtocolError, frame, json_frame
from worker.engine_process.info import EngineInfo
from worker.engine_process.memory import Layout, SlotMemory, layout, new_memory
from worker.runtime.logs import place_of

logger = logging.getLogger(__name__)

#: `NAMESHOT_CONCURRENCY` has the same upper bound.
MAX_SLOTS: Final = 4096
#: This is twice the size of the longest prompt (`producer.contract.labels`) in the widest characters.
MAX_PROMPT_BYTES: Final = 8192
#: While a front has this many unanswered requests, the engine reads no further ones, so the front's images may wait
#: behind its prompts. The number allows more than a hundred jobs with `worker.embeddings.reading.MAX_REQUESTED` new
#: labels each.
MAX_UNANSWERED: Final = 65_536
#: The engine closes the connection of a front that does not complete the handshake in this time.
GREETING_S: Final = 10.0


class FrontConnection:
    """Serves one front until its connection ends or it breaks the protocol.

    Args:
        engine: owns the device.
        info: the description of the engine's model for the front.
        sample: the layout of one of the model's images; every image must consist of the same arrays.
        connection: the connection to the front; closed at the end.
    """

    def __init__(self, engine: LocalEngine, info: EngineInfo, sample: Layout, connection: socket.socket) -> None:
        self._engine = engine
        self._info = info
        self._sample = sample
        self._connection = connection
        self._outbox: Outbox | None = None
        self._lock = threading.Lock()
        #: Unanswered requests by the numbers that the front chose, and the slots of the images among them.
        self._requests: dict[int, Future[Any]] = {}
        self._used_slots: set[int] = set()
        self._unanswered = threading.Semaphore(MAX_UNANSWERED)

    def serve(self) -> None:
        """Serve the front's requests until its connection ends, then cancel the unanswered ones."""
        try:
            self._connection.settimeout(GREETING_S)
            # Only this variable and the front's images refer to the memory, so that it is unmapped when the last of
            # them is freed, without garbage collection.
            memory = self._greet()
            self._connection.settimeout(None)
            self._outbox = Outbox(self._connection, "front-replies", self._sent)
            for kind, number, payload in frames.frames(self._connection, frames.MAX_REQUEST_BYTES):
                self._handle(memory, kind, number, payload)
        except ProtocolError as error:
            logger.error("closing the connection of a front that broke the protocol: %s", error)
        except OSError:
            pass  # the front was killed, or ended in the middle of a frame
        except Exception as error:  # a bug of ours must not end the engine that other fronts use
            logger.error("closing the connection of a front after %s at %s", type(error).__name__, place_of(error))
        finally:
            self._clean_up()

    def send_state(self, state: frames.State) -> None:
        """Send the device's state to the front."""
        if self._outbox is not None:
            self._outbox.put(frame(frames.STATE, payload=frames.STATE_FRAME.pack(*state)))

    def disconnect(self) -> None:
        """End the connection; any thread may call this."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _greet(self) -> SlotMemory:
        self._connection.sendall(json_frame(frames.WELCOME, 0, asdict(self._info)))
        kind, _, payload = frames.receive(self._connection, frames.MAX_REQUEST_BYTES)
        slots = frames.from_json(payload) if kind == frames.SLOTS else None
        if type(slots) is not int or not 0 < slots <= MAX_SLOTS:
            raise ProtocolError("the number of slots is missing or invalid")
        descriptor = new_memory(slots, self._info.slot_bytes)
        with open(descriptor, "rb", buffering=0):  # closes the descriptor  # noqa: PTH123 - it has no path
            memory = SlotMemory(descriptor, slots, self._info.slot_bytes)
            socket.send_fds(self._connection, [frame(frames.MEMORY)], [descriptor])
        return memory

    def _handle(self, memory: SlotMemory, kind: int, number: int, payload: bytes) -> None:
        if kind == frames.CANCEL:
            with self._lock:
                future = self._requests.get(number)
            if future is not None:
                future.cancel()
            return
        with self._lock:
            if number in self._requests:
                raise ProtocolError("a request's number is in use")
        self._unanswered.acquire()
        if kind == frames.IMAGE:
            self._image(memory, number, payload)
        elif kind == frames.PROMPT:
            self._prompt(memory, number, payload)
        elif kind == frames.COUNT:
            self._count(number, payload)
        else:
            raise ProtocolError(f"a frame has the unknown kind {kind}")

    def _image(self, memory: SlotMemory, number: int, payload: bytes) -> None:
        if len(payload) <= frames.IMAGE_HEAD.size:
            raise ProtocolError("an image has no header")
        slot, rank, alone = frames.IMAGE_HEAD.unpack_from(payload)
        description = payload[frames.IMAGE_HEAD.size :]
        if slot >= memory.slots or rank >= len(QUEUES):
            raise ProtocolError("an image names a slot or a queue that does not exist")
        with self._lock:
            if slot in self._used_slots:
                raise ProtocolError("an image's slot is in use")
            self._used_slots.add(slot)
        arrays = layout(description)
        if arrays.kinds != self._sample.kinds or arrays.size_bytes > self._info.slot_bytes:
            raise ProtocolError("an image has arrays that this model does not use")
        # Images with one description share batches; a suspect's image has a batch of its own.
        key = object() if alone else description
        image = ImageInSlot(memory.read(slot, arrays), key, alone, partial(memory.mark, slot))
        self._reply_when_done(number, self._engine.queue_image(image, QUEUES[rank]), "this image", slot)

    def _prompt(self, memory: SlotMemory, number: int, payload: bytes) -> None:
        if not frames.PROMPT_HEAD.size <= len(payload) <= frames.PROMPT_HEAD.size + MAX_PROMPT_BYTES:
            raise ProtocolError("a prompt is too long, or has no header")
        [alone] = frames.PROMPT_HEAD.unpack_from(payload)
        try:
            prompt = PromptOfFront(payload[frames.PROMPT_HEAD.size :].decode())
        except UnicodeDecodeError:
            raise ProtocolError("a prompt is not UTF-8") from None
        prompt.is_suspect, prompt.mark = alone, partial(memory.mark, memory.prompt_mark(number))
        self._reply_when_done(number, self._engine.embed_prompt(prompt, alone=alone), "a label")

    def _count(self, number: int, payload: bytes) -> None:
        prompts = frames.from_json(payload)
        if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
            raise ProtocolError("the prompts to count are not a list of texts")
        if any(len(prompt) > MAX_PROMPT_BYTES for prompt in prompts):
            raise ProtocolError("a prompt is too long")
        try:
            reply = json_frame(frames.COUNTS, number, self._engine.count_tokens(prompts, CancelScope(math.inf)))
        except Exception as error:  # the tokenizer may raise any exception
            reply = _failed(number, error, "a label")
        self._reply(reply)

    def _reply_when_done(self, number: int, future: Future[Any], subject: str, slot: int | None = None) -> None:
        """Once the future is done, remove the request, free an image's slot, and send the reply."""
        with self._lock:
            self._requests[number] = future

        def arrived(done: Future[Any]) -> None:
            with self._lock:
                self._requests.pop(number, None)
                self._used_slots -= {slot}
            self._reply(_reply_for(number, done, subject))

        future.add_done_callback(arrived)

    def _reply(self, data: bytes) -> None:
        if self._outbox is not None:
            self._outbox.put(data, counts=True)

    def _sent(self, count: int) -> None:
        if count:
            self._unanswered.release(count)

    def _clean_up(self) -> None:
        with self._lock:
            futures = list(self._requests.values())
        for future in futures:
            future.cancel()
        if self._outbox is not None:
            self._outbox.close()
        self.disconnect()
        self._connection.close()


def _reply_for(number: int, done: Future[Any], subject: str) -> bytes:
    """Return the frame that replies to a request for an image or a prompt."""
    if done.cancelled():
        return frame(frames.DROPPED, number)
    if (error := done.exception()) is not None:
        return _failed(number, error, subject)
    return frames.vector_frame(number, done.result())


def _failed(number: int, error: BaseException, subject: str) -> bytes:
    failure = failure_of(error, subject)
    return json_frame(frames.FAILED, number, [failure.code, failure.message])
