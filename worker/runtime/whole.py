"""Sends and receives whole blocks of bytes with calls that may move only a part, such as those of sockets and pipes."""

from __future__ import annotations

from collections.abc import Callable


def receive_whole(size: int, receive_into: Callable[[memoryview], int]) -> bytearray:
    """Receive and return exactly `size` bytes.

    Args:
        receive_into: receives at least one byte into a buffer and returns how many; 0 at the end of the stream.

    Raises:
        ConnectionResetError: the stream ended before `size` bytes.
    """
    received = bytearray(size)
    left = memoryview(received)
    while left:
        if not (count := receive_into(left)):
            raise ConnectionResetError("the other process has closed the stream")
        left = left[count:]
    return received


def send_whole(data: bytes | memoryview, send: Callable[[memoryview], int]) -> None:
    """Send all of `data` with a function that sends at least one byte and returns how many."""
    left = memoryview(data)
    while left:
        left = left[send(left) :]
