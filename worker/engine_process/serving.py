"""The engine's server: accepts fronts and lets them all use one device."""

from __future__ import annotations

import logging
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from worker.engine.local import LocalEngine
from worker.engine_process.frames import State
from worker.engine_process.front_connection import FrontConnection
from worker.engine_process.info import EngineInfo
from worker.engine_process.memory import Layout

logger = logging.getLogger(__name__)

#: The launcher starts at most 64 fronts for an engine. The other places are for dead fronts that still seem connected.
MAX_FRONTS: Final = 128
#: When the process is out of descriptors, the server pauses for this long before it accepts again.
_PAUSE_S: Final = 0.1


class Server:
    """Listens on a Unix socket and serves each front in threads of its own.

    Args:
        engine: owns the device.
        info: the description of the engine's model for the fronts.
        sample: the layout of one of the model's images; every image must consist of the same arrays.
        path: the socket's path; the permissions of its folder decide which users may connect.
    """

    def __init__(self, engine: LocalEngine, info: EngineInfo, sample: Layout, path: Path) -> None:
        self._engine = engine
        self._info = info
        self._sample = sample
        self._path = path
        self._lock = threading.Lock()
        self._fronts: set[FrontConnection] = set()
        self._listener: socket.socket | None = None
        #: The device and inode of the socket's file, which tell whether the path still leads to the listener.
        self._file: tuple[int, int] | None = None
        self._fault = ""

    def keep_listening(self) -> None:
        """Start accepting connections, or, if the path no longer leads to this server, listen on the path again.

        Call this about once a second: a cleaner of old files may remove the socket, or its whole folder, which the
        launcher then creates again. Existing connections continue. A failure is logged once, until it changes.
        """
        if self._file is not None and self._file == _file_at(self._path):
            return
        try:
            listener = _listening_on(self._path)
        except OSError as error:
            if self._fault != (fault := error.strerror or type(error).__name__):
                logger.error("cannot listen on the socket %s (%s); trying again", self._path, fault)
            self._fault = fault
            return
        if self._listener is not None:
            logger.warning("the socket %s was removed: listening on a new one", self._path)
        self._stop_listening()
        self._listener, self._file, self._fault = listener, _file_at(self._path), ""
        threading.Thread(target=self._accept, args=(listener,), name="accepting", daemon=True).start()

    @property
    def fronts(self) -> int:
        """The number of connected fronts."""
        with self._lock:
            return len(self._fronts)

    def send_state(self) -> None:
        """Send the device's state to all fronts."""
        with self._lock:
            fronts = list(self._fronts)
        engine = self._engine
        state = State(engine.waiting, engine.busy_s, engine.batch_limit, *engine.batch_cost_s)
        for front in fronts:
            front.send_state(state)

    def close(self) -> None:
        """Stop accepting connections and end the existing ones."""
        self._stop_listening()
        self._path.unlink(missing_ok=True)
        with self._lock:
            fronts = list(self._fronts)
        for front in fronts:
            front.disconnect()

    def _stop_listening(self) -> None:
        if self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                if listener.fileno() < 0:
                    return
                time.sleep(_PAUSE_S)
                continue
            front = FrontConnection(self._engine, self._info, self._sample, connection)
            with self._lock:
                if full := len(self._fronts) >= MAX_FRONTS:
                    connection.close()
                else:
                    self._fronts.add(front)
            if not full:
                threading.Thread(target=self._serve, args=(front,), name="front", daemon=True).start()

    def _serve(self, front: FrontConnection) -> None:
        try:
            front.serve()
        finally:
            with self._lock:
                self._fronts.discard(front)


def _listening_on(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)  # a dead engine may have left its socket
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        listener.listen(MAX_FRONTS)
    except OSError:
        listener.close()
        raise
    return listener


def _file_at(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
