"""The engine's side: who connects is served, beside the others, by one device."""

from __future__ import annotations

import logging
import socket
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Final

from producer.contract import Queue
from producer.errors import JobFailed
from worker.concurrency.cancel_scope import CancelScope
from worker.engine.batcher import BatchResult
from worker.engine.local import LocalEngine
from worker.engine_process.frames import Array, ProtocolError, State
from worker.engine_process.guest import FrontConnection
from worker.engine_process.memory import Layout, layout
from worker.engine_process.one_by_one import OneByOne
from worker.engine_process.terms import EngineInfo
from worker.model.interface import Prepared

logger = logging.getLogger(__name__)

#: Fronts of one engine, and those that were replaced and are not gone yet.
MAX_GUESTS: Final = 128
#: Out of descriptors: fronts go on trying, and so does this.
_PAUSE_S: Final = 0.1


class Server:
    """Listens on a path and serves each front in threads of its own.

    Args:
        engine: owns the device.
        terms: what fronts are told of its model.
        sample: how one of the model's images lies in a slot; every other must consist of the same arrays.
        path: of the socket; who may connect is decided by the rights of its folder.
    """

    def __init__(self, engine: LocalEngine, terms: EngineInfo, sample: Layout, path: Path) -> None:
        self.terms = terms
        self._engine = engine
        self._sample = sample
        self._path = path
        self._alone = OneByOne(engine.queue_image)
        self._lock = threading.Lock()
        self._guests: set[FrontConnection] = set()
        self._forever = CancelScope(float("inf"))
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def start(self) -> None:
        """Take connections from now on."""
        self._path.unlink(missing_ok=True)  # of an engine that died
        self._listener.bind(str(self._path))
        self._listener.listen(MAX_GUESTS)
        threading.Thread(target=self._accept, name="accepting", daemon=True).start()

    @property
    def guests(self) -> int:
        """Fronts that are connected now."""
        with self._lock:
            return len(self._guests)

    def tell_state(self) -> None:
        """Let all fronts know how the device is."""
        with self._lock:
            guests = list(self._guests)
        engine = self._engine
        state = State(engine.waiting, engine.busy_s, engine.batch_limit, *engine.batch_cost_s)
        for guest in guests:
            guest.tell_state(state)

    def close(self) -> None:
        """Take no more connections and end those there are."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._path.unlink(missing_ok=True)
        with self._lock:
            guests = list(self._guests)
        for guest in guests:
            guest.disconnect()

    def layout(self, description: bytes) -> Layout:
        """Where such arrays lie.

        Raises:
            ProtocolError: they are not what this model takes, or larger than a slot.
        """
        found = layout(description)
        if found.kinds != self._sample.kinds or found.size_bytes > self.terms.slot_bytes:
            raise ProtocolError("arrays that this model does not take")
        return found

    def queue_image(self, image: Prepared, queue: Queue, alone: bool) -> Future[BatchResult[Array]]:
        """Let an image wait for a batch, or a suspect for its turn; raises as `LocalEngine.queue_image`."""
        return self._alone.add(image, queue) if alone else self._engine.queue_image(image, queue)

    def embed_prompt(self, prompt: str, alone: bool) -> Future[Array]:
        """As `LocalEngine.embed_prompt`."""
        return self._engine.embed_prompt(prompt, alone=alone)

    def count_tokens(self, prompts: list[str]) -> list[int]:
        """As `worker.model.interface.Model.count_tokens`."""
        return self._engine.count_tokens(prompts, self._forever)

    def failure(self, error: BaseException, subject: str) -> JobFailed:
        """As `LocalEngine.failure`."""
        return self._engine.failure(error, subject)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                if self._listener.fileno() < 0:
                    return
                time.sleep(_PAUSE_S)
                continue
            guest = FrontConnection(self, connection)
            with self._lock:
                if full := len(self._guests) >= MAX_GUESTS:
                    connection.close()
                else:
                    self._guests.add(guest)
            if not full:
                threading.Thread(target=self._serve, args=(guest,), name="front", daemon=True).start()

    def _serve(self, guest: FrontConnection) -> None:
        try:
            guest.serve()
        finally:
            with self._lock:
                self._guests.discard(guest)
