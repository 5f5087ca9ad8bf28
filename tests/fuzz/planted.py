"""A target with one fault of each kind, for the harness to find."""

from __future__ import annotations

import ctypes
import os
import threading

from tests.fuzz.target import Target


def run(data: bytes) -> bool:
    if data.startswith(b"raise"):
        raise ValueError("planted")
    if data.startswith(b"segfault"):
        ctypes.string_at(0)
    if data.startswith(b"hang"):
        threading.Event().wait()
    if data.startswith(b"hoard"):
        bytearray(1 << 34)
    return True


TARGET = Target(run, lambda: [b"sound", os.environ["PLANTED"].encode()])
