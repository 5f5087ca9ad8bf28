"""TCP lines to Valkey that a test can cut, as a network fault of one process would."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

T = TypeVar("T")

HOST = "127.0.0.1"
CHUNK_BYTES = 65_536
CALL_TIMEOUT_S = 10.0


class Line:
    """A listening port whose connections are forwarded to the target; made by `Switchboard.line`.

    While the line is cut, a new connection is accepted and reset at once rather than refused: if the port were closed,
    another program could occupy it before the line is restored.
    """

    def __init__(self, switchboard: Switchboard, target_port: int, tls: ssl.SSLContext | None) -> None:
        self._switchboard = switchboard
        self._target_port = target_port
        self._tls = tls
        self._transports: set[asyncio.WriteTransport] = set()
        self._server: asyncio.Server | None = None
        self.is_cut = False
        self.port = 0

    def cut(self) -> None:
        """Break every connection, and each new one until `restore`."""
        self._switchboard.call(self._cut())

    def restore(self) -> None:
        """Let connections through again."""
        self.is_cut = False

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._cut()

    async def _cut(self) -> None:
        self.is_cut = True
        for transport in self._transports:
            transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        transports = [writer.transport]
        try:
            if self.is_cut:
                return
            self._transports.add(writer.transport)
            far_reader, far_writer = await asyncio.open_connection(HOST, self._target_port)
            transports.append(far_writer.transport)
            self._transports.add(far_writer.transport)
            pumps = {asyncio.ensure_future(_pump(reader, far_writer)), asyncio.ensure_future(_pump(far_reader, writer))}
            _, rest = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in rest:
                pump.cancel()
        except OSError:
            pass  # the target is down: the near end sees its connection break
        finally:
            for transport in transports:
                transport.abort()
            self._transports.difference_update(transports)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass


class Switchboard:
    """Runs all lines of a run on one event loop in a thread; a context manager."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lines", daemon=True)
        self._lines: list[Line] = []

    def line(self, target_port: int, tls: ssl.SSLContext | None = None) -> Line:
        """Return a new line to a port of this machine; with a ``tls`` context, its near end speaks TLS."""
        line = Line(self, target_port, tls)
        self.call(line.listen())
        self._lines.append(line)
        return line

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_TIMEOUT_S)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for line in self._lines:
            self.call(line.close())
        self.call(_until_nothing_runs())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _until_nothing_runs() -> None:
    """Wait until the tasks and sockets of the connections that were just broken have ended."""
    while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(tasks)
    await asyncio.sleep(0)
