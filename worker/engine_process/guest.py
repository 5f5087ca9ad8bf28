"""One front, as its engine sees it."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol

from producer.contract import QUEUES, Queue
from producer.errors import JobFailed
from worker.engine.batcher import BatcherClosed, BatchResult
from worker.engine_process import frames
from worker.engine_process.frames import Array, Outbox, ProtocolError, frame, json_frame
from worker.engine_process.memory import Layout, SlotMemory, new_memory
from worker.engine_process.rides import ImageInSlot, PromptOfFront
from worker.engine_process.terms import EngineInfo
from worker.model.interface import Prepared
from worker.runtime.logs import place_of

logger = logging.getLogger(__name__)

#: As `NAMESHOT_CONCURRENCY` has it.
MAX_SLOTS: Final = 4096
#: Twice a template with a label in it (`producer.contract.labels`), of the widest characters.
MAX_PROMPT_BYTES: Final = 8192
#: Requests of one front that are not answered; it is not read from while it has more, and its images then wait behind
#: its prompts: so this is more than a hundred jobs of `worker.embeddings.of_labels.MAX_ASKED` new labels at once.
MAX_UNANSWERED: Final = 65_536
#: From a front's connection to its first request; what connects and says nothing is let go.
GREETING_S: Final = 10.0


class EngineHost(Protocol):
    """What a guest needs of the engine process."""

    terms: EngineInfo

    def layout(self, description: bytes) -> Layout:
        """Where such arrays lie; raises `ProtocolError` where the model takes no such arrays."""

    def queue_image(self, image: Prepared, queue: Queue, alone: bool) -> Future[BatchResult[Array]]:
        """As `LocalEngine.queue_image`; alone: with no other image that is to ride alone."""

    def embed_prompt(self, prompt: str, alone: bool) -> Future[Array]:
        """As `LocalEngine.embed_prompt`."""

    def count_tokens(self, prompts: list[str]) -> list[int]:
        """As `Model.count_tokens`."""

    def failure(self, error: BaseException, subject: str) -> JobFailed:
        """As `LocalEngine.failure`."""


class FrontConnection:
    """Serves one connection until it ends or says what cannot be.

    Args:
        connection: a front's; closed at the end.
    """

    def __init__(self, host: EngineHost, connection: socket.socket) -> None:
        self._host = host
        self._connection = connection
        self._outbox: Outbox | None = None
        self._lock = threading.Lock()
        #: What was asked and not answered, by the front's number; and the slots of the images among it.
        self._asked: dict[int, Future[Any]] = {}
        self._taken: set[int] = set()
        self._unanswered = threading.Semaphore(MAX_UNANSWERED)

    def serve(self) -> None:
        """Answer until the front is gone; what it still waits for is taken back then."""
        try:
            self._connection.settimeout(GREETING_S)
            # In this frame only: it is given back with the front's last image, and waits for no collector of garbage.
            memory = self._greet()
            self._connection.settimeout(None)
            self._outbox = Outbox(self._connection, "front-answers", self._sent)
            for kind, number, payload in frames.frames(self._connection, frames.MAX_REQUEST_BYTES):
                self._take(memory, kind, number, payload)
        except ProtocolError as nonsense:
            logger.error("a front spoke nonsense (%s): its connection is closed", nonsense)
        except OSError:
            pass  # it was killed, or ended in the middle of a word
        except Exception as error:  # a bug of ours must not end the engine of all others
            logger.error("a front's connection ends: %s at %s", type(error).__name__, place_of(error))
        finally:
            self._leave()

    def tell_state(self, state: frames.State) -> None:
        """Let the front know how the device is."""
        if self._outbox is not None:
            self._outbox.put(frame(frames.STATE, payload=frames.STATE_FRAME.pack(*state)))

    def disconnect(self) -> None:
        """End it, from any thread."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _greet(self) -> SlotMemory:
        self._connection.sendall(json_frame(frames.WELCOME, 0, self._host.terms.values()))
        kind, _, payload = frames.receive(self._connection, frames.MAX_REQUEST_BYTES)
        slots = frames.from_json(payload) if kind == frames.FURNISH else None
        if type(slots) is not int or not 0 < slots <= MAX_SLOTS:
            raise ProtocolError("no number of slots")
        descriptor = new_memory(slots, self._host.terms.slot_bytes)
        with open(descriptor, "rb", buffering=0):  # closes it  # noqa: PTH123 - it has no path
            memory = SlotMemory(descriptor, slots, self._host.terms.slot_bytes)
            socket.send_fds(self._connection, [frame(frames.MEMORY)], [descriptor])
        return memory

    def _take(self, memory: SlotMemory, kind: int, number: int, payload: bytes) -> None:
        if kind == frames.CANCEL:
            with self._lock:
                future = self._asked.get(number)
            if future is not None:
                future.cancel()
            return
        with self._lock:
            if number in self._asked:
                raise ProtocolError("a number that is asked for already")
        self._unanswered.acquire()
        if kind == frames.IMAGE:
            self._image(memory, number, payload)
        elif kind == frames.PROMPT:
            self._prompt(memory, number, payload)
        elif kind == frames.COUNT:
            self._count(number, payload)
        else:
            raise ProtocolError(f"a frame of kind {kind}")

    def _image(self, memory: SlotMemory, number: int, payload: bytes) -> None:
        if len(payload) <= frames.IMAGE_HEAD.size:
            raise ProtocolError("an image without a head")
        slot, rank, alone = frames.IMAGE_HEAD.unpack_from(payload)
        description = payload[frames.IMAGE_HEAD.size :]
        if slot >= memory.slots or rank >= len(QUEUES):
            raise ProtocolError("no such slot or queue")
        with self._lock:
            if slot in self._taken:
                raise ProtocolError("a slot that is in use")
            self._taken.add(slot)
        arrays = memory.read(slot, self._host.layout(description))
        # Images of one layout ride together; a suspect with nobody.
        key = object() if alone else description
        image = ImageInSlot(arrays, key, alone, partial(memory.mark, slot))
        try:
            future = self._host.queue_image(image, QUEUES[rank], alone)
        except BatcherClosed as error:
            future = Future()
            future.set_exception(error)
        self._promise(number, future, partial(self._image_answer, number, slot))

    def _prompt(self, memory: SlotMemory, number: int, payload: bytes) -> None:
        if not frames.PROMPT_HEAD.size <= len(payload) <= frames.PROMPT_HEAD.size + MAX_PROMPT_BYTES:
            raise ProtocolError("a prompt that is too long, or has no head")
        [alone] = frames.PROMPT_HEAD.unpack_from(payload)
        text = _text(payload[frames.PROMPT_HEAD.size :])
        prompt = PromptOfFront.made(text, alone, partial(memory.mark_prompt, number))
        self._promise(number, self._host.embed_prompt(prompt, alone), partial(self._prompt_answer, number))

    def _count(self, number: int, payload: bytes) -> None:
        prompts = frames.from_json(payload)
        if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
            raise ProtocolError("no list of prompts")
        if any(len(prompt) > MAX_PROMPT_BYTES for prompt in prompts):
            raise ProtocolError("a prompt that is too long")
        try:
            answer = json_frame(frames.COUNTS, number, self._host.count_tokens(prompts))
        except Exception as error:  # a tokenizer's
            answer = self._refusal(number, self._host.failure(error, "a label"))
        self._answer(answer)

    def _promise(self, number: int, future: Future[Any], answer: Callable[[Future[Any]], bytes]) -> None:
        """Have the answer sent once it is there, and no later than that forget what was asked."""
        with self._lock:
            self._asked[number] = future

        def arrived(done: Future[Any]) -> None:
            with self._lock:
                self._asked.pop(number, None)
            self._answer(answer(done))

        future.add_done_callback(arrived)

    def _image_answer(self, number: int, slot: int, done: Future[BatchResult[Array]]) -> bytes:
        with self._lock:
            self._taken.discard(slot)
        if done.cancelled():
            return frame(frames.DROPPED, number)
        if (error := done.exception()) is not None:
            return self._refusal(number, self._host.failure(error, "this image"))
        return frames.vector_frame(number, done.result())

    def _prompt_answer(self, number: int, done: Future[Array]) -> bytes:
        if done.cancelled():
            return frame(frames.DROPPED, number)
        if (error := done.exception()) is not None:
            return self._refusal(number, self._host.failure(error, "a label"))
        return frames.vector_frame(number, BatchResult(done.result(), 1, 0.0, 0.0))

    def _refusal(self, number: int, failure: JobFailed) -> bytes:
        return json_frame(frames.FAILED, number, [failure.code, failure.message])

    def _answer(self, data: bytes) -> None:
        if self._outbox is not None:
            self._outbox.put(data, counts=True)

    def _sent(self, count: int) -> None:
        if count:
            self._unanswered.release(count)

    def _leave(self) -> None:
        with self._lock:
            asked = list(self._asked.values())
        for future in asked:
            future.cancel()
        if self._outbox is not None:
            self._outbox.close()
        self.disconnect()
        self._connection.close()


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise ProtocolError("a prompt that is no text") from None
