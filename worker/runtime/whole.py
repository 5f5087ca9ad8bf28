"""Moves whole blocks of bytes through calls that may move only a part: sockets, pipes."""

from __future__ import annotations

from collections.abc import Callable


def receive_whole(size: int, receive_into: Callable[[memoryview], int]) -> bytearray:
    """Receive exactly `size` bytes.

    Args:
        receive_into: receives at least one byte into a buffer and returns how many; 0 once the other side has ended.

    Raises:
        ConnectionResetError: the other side has ended.
    """
    received = bytearray(size)
    left = memoryview(received)
    while left:
        if not (count := receive_into(left)):
            raise ConnectionResetError("the other side has ended")
        left = left[count:]
    return received


def send_whole(data: bytes | memoryview, send: Callable[[memoryview], int]) -> None:
    """Send all of `data` with a function that sends at least one byte and returns how many."""
    left = memoryview(data)
    while left:
        left = left[send(left) :]
