"""An engine disconnects hostile fronts, clears up after killed ones, and serves the others."""

import json
import os
import socket
from contextlib import closing
from pathlib import Path

import pytest

from tests.engine_process.engines import TIMEOUT_S, Engines, GatedModel, image, soon
from tests.eventually import eventually
from tests.processes.programs import kill, run_python
from worker.engine_process import frames, front_connection
from worker.engine_process.frames import HEAD, IMAGE_HEAD, frame, json_frame
from worker.engine_process.link import ask_info

SLOTS = 2
PIXELS = json.dumps([["pixels", "|u1", [32, 32, 3]]]).encode()
#: A front in a separate process that requests one embedding and waits.
FRONT = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from worker.concurrency.cancel_scope import CancelScope
from worker.engine_process.link import ask_info
from worker.engine_process.remote import RemoteEngine
from worker.model.interface import Prepared
path = Path(sys.argv[1])
front = RemoteEngine(path, ask_info(path), slots=4, on_other_model=lambda: None)
print("[1]", flush=True)
pixels = np.full((32, 32, 3), 77, np.uint8)
front.embed_image(Prepared({"pixels": pixels}, None), "default", CancelScope(time.monotonic() + 600))
"""


def greeted(path: Path, slots: object = SLOTS) -> socket.socket:
    """Return a connection to the engine on which a test can send anything, after a request for ``slots`` slots."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(TIMEOUT_S)
    connection.connect(str(path))
    frames.receive(connection, frames.MAX_REPLY_BYTES)
    connection.sendall(json_frame(frames.SLOTS, 0, slots))
    return connection


def with_memory(path: Path) -> tuple[socket.socket, int]:
    connection = greeted(path)
    _, descriptor = frames.receive_with_descriptor(connection, frames.MAX_REPLY_BYTES)
    assert descriptor is not None
    return connection, descriptor


def is_closed(connection: socket.socket) -> bool:
    """Read the remaining replies; return True once the engine has closed the connection."""
    try:
        while connection.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True


def an_image(slot: int = 0, rank: int = 0, description: bytes = PIXELS, number: int = 1) -> bytes:
    return frame(frames.IMAGE, number, IMAGE_HEAD.pack(slot, rank, False) + description)


def arrays(*rows: object) -> bytes:
    return an_image(description=json.dumps(rows).encode())


NONSENSE = {
    "a kind that is none": frame(99, 1),
    "an answer": frame(frames.VECTOR, 1),
    "gigabytes": HEAD.pack(2**32 - 1, frames.IMAGE, 1),
    "an image without a head": frame(frames.IMAGE, 1, b"x"),
    "a slot that is none": an_image(slot=SLOTS),
    "a queue that is none": an_image(rank=9),
    "a slot twice": an_image() + an_image(number=2),
    "a number twice": an_image() + an_image(slot=1),
    "no JSON": an_image(description=b"[[[["),
    "deep JSON": an_image(description=b"[" * 100_000),
    "no arrays": arrays(),
    "objects": arrays(["pixels", "|O", [32, 32, 3]]),
    "a structure": arrays(["pixels", "i4,O", [32, 32, 3]]),
    "a dtype that is code": arrays(["pixels", "(1+", [32, 32, 3]]),
    "an array of another name": arrays(["pixel", "|u1", [32, 32, 3]]),
    "an array of another dtype": arrays(["pixels", "<f8", [32, 32, 3]]),
    "one axis too many": arrays(["pixels", "|u1", [32, 32, 3, 1]]),
    "an array larger than a slot": arrays(["pixels", "|u1", [4096, 4096, 3]]),
    "a product that overflows": arrays(["pixels", "|u1", [2**31 - 1, 2**31 - 1, 2**31 - 1]]),
    "a negative shape": arrays(["pixels", "|u1", [-32, -32, 3]]),
    "a shape that is no number": arrays(["pixels", "|u1", [32, 32, "3"]]),
    "no row": arrays(7),
    "a prompt that is no text": frame(frames.PROMPT, 1, b"\0\xff\xfe"),
    "a prompt of a megabyte": frame(frames.PROMPT, 1, b"\0" + b"x" * 1_000_000),
    "a prompt without a head": frame(frames.PROMPT, 1),
    "prompts that are none": json_frame(frames.COUNT, 1, {"a": 1}),
    "prompts that are numbers": json_frame(frames.COUNT, 1, [1]),
    "one of them of a megabyte": json_frame(frames.COUNT, 1, ["x" * 1_000_000]),
}


@pytest.mark.parametrize("said", NONSENSE.values(), ids=NONSENSE)
def test_a_front_that_sends_nonsense_is_disconnected_and_others_are_served(
    said: bytes, model: GatedModel, engines: Engines, caplog: pytest.LogCaptureFixture
) -> None:
    engines.serve(model)
    neighbour = engines.front()
    model.may_run.clear()
    connection, descriptor = with_memory(engines.path)
    with closing(connection):
        connection.sendall(said)
        assert is_closed(connection)
    os.close(descriptor)
    model.may_run.set()

    assert "a front that broke the protocol" in caplog.text
    assert neighbour.embed_image(image(model, 1), "default", soon()).output.ndim == 1


@pytest.mark.parametrize("slots", [0, -1, 10**9, 2.0, True, "2", None, [2]])
def test_a_front_that_requests_an_impossible_number_of_slots_is_disconnected(
    slots: object, model: GatedModel, engines: Engines
) -> None:
    engines.serve(model)
    with closing(greeted(engines.path, slots)) as connection:
        assert is_closed(connection)


def test_no_front_can_change_the_size_of_the_shared_memory(model: GatedModel, engines: Engines) -> None:
    engines.serve(model)
    connection, descriptor = with_memory(engines.path)
    with closing(connection):
        size = os.fstat(descriptor).st_size
        for other in (0, size - 1, size + 1):
            with pytest.raises(PermissionError):
                os.ftruncate(descriptor, other)
    os.close(descriptor)


def test_an_image_of_a_shape_that_the_model_does_not_accept_fails_alone(model: GatedModel, engines: Engines) -> None:
    """An image whose shape fits the slot but that no geometry produces fails, and no other image does."""
    engines.serve(model)
    neighbour = engines.front()
    connection, descriptor = with_memory(engines.path)
    with closing(connection):
        connection.sendall(arrays(["pixels", "|u1", [1, 32, 3]]))
        kind, number, payload = frames.receive(connection, frames.MAX_REPLY_BYTES)
    os.close(descriptor)

    assert (kind, number, json.loads(payload)[0]) == (frames.FAILED, 1, "model_error")
    assert neighbour.embed_image(image(model, 1), "default", soon()).output.ndim == 1


def test_an_engine_keeps_nothing_of_a_front_that_was_killed(model: GatedModel, engines: Engines) -> None:
    server = engines.serve(model)
    neighbour = engines.front()
    model.may_run.clear()
    held = engines.ask(neighbour, image(model, 1))
    assert model.running.acquire(timeout=TIMEOUT_S)
    before = descriptors(), memories()
    front = run_python(FRONT, engines.path)
    eventually(lambda: engines.engine.waiting == 1)
    assert memories() > before[1]

    kill(front)
    eventually(lambda: server.fronts == 1)
    model.may_run.set()

    assert held.result(TIMEOUT_S).batch_size == 1
    assert neighbour.embed_image(image(model, 2), "default", soon()).batch_size == 1
    assert model.runs == [[1], [2]], "the engine ran the killed front's image"
    eventually(lambda: (descriptors(), memories()) <= before)


def test_a_front_that_reads_no_replies_is_disconnected_and_delays_no_other(
    model: GatedModel, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front_connection, "MAX_UNANSWERED", 64)
    server = engines.serve(model)
    neighbour = engines.front()
    connection, descriptor = with_memory(engines.path)
    with closing(connection):
        connection.settimeout(1)
        flood = b"".join(json_frame(frames.COUNT, number, ["a fox"] * 500) for number in range(20_000))
        with pytest.raises(TimeoutError):  # the buffers of both sides are full
            connection.sendall(flood)

        assert neighbour.embed_image(image(model, 1), "default", soon()).output.ndim == 1
    os.close(descriptor)
    eventually(lambda: server.fronts == 1)


def descriptors() -> int:
    """Return how many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def memories() -> int:
    """Return how many pieces of shared memory this process has mapped."""
    return Path("/proc/self/maps").read_text().count("memfd:nameshot-images")


@pytest.mark.skipif("os.geteuid() != 0")
def test_a_front_speaks_to_no_engine_of_another_user(tmp_path: Path) -> None:
    """The folder of the sockets may have been removed, and one of that name created by another user."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "engine"))
        os.seteuid(12345)  # the kernel notes who calls listen()
        try:
            listener.listen()
        finally:
            os.seteuid(0)

        with pytest.raises(PermissionError, match="user 12345 listens"):
            ask_info(tmp_path / "engine")
