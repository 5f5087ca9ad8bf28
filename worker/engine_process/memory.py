"""Memory that one front shares with its engine, for the images in flight; each slot of it holds one image.

The engine creates the memory and seals its size, because a front that shrank it would crash the engine; both processes
map it. The front writes an image into a free slot, which becomes free again once the engine has replied. The memory
begins with marks, one byte for each slot or prompt, which the engine sets while the image or prompt is in a running
batch. If the engine dies, the marks show the front which images and prompts were on the device.
"""

from __future__ import annotations

import fcntl
import json
import math
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from worker.engine_process.frames import ProtocolError, from_json

#: A prompt has no slot; its request's number modulo this number determines its mark. An engine works on no more
#: requests of a front at a time (`front_connection.MAX_UNANSWERED`), so two prompts rarely share a mark; if two do, one
#: of them may become a suspect by mistake.
PROMPT_MARKS: Final = 65_536
#: Arrays start on a cache line, which suits every dtype.
_ALIGNMENT: Final = 64
_MAX_AXES: Final = 8
#: This many layouts are cached; most models have one.
_LAYOUTS: Final = 1024
_MAX_ARRAYS: Final = 16
#: Only booleans, integers and floats are accepted: an array of Python objects would hold pointers.
_KINDS: Final = "buif"


@dataclass(frozen=True, slots=True)
class ArrayLocation:
    """The position of an array within a slot."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The positions of one image's arrays within a slot."""

    arrays: tuple[ArrayLocation, ...]
    size_bytes: int

    @property
    def kinds(self) -> tuple[tuple[str, str, int], ...]:
        """The name, dtype and number of axes of each array, which are the same for all images of a model."""
        return tuple((location.name, location.dtype.str, len(location.shape)) for location in self.arrays)


def described(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the names, dtypes and shapes of arrays, as JSON for `layout`."""
    return json.dumps([[name, array.dtype.str, array.shape] for name, array in arrays.items()]).encode()


@lru_cache(_LAYOUTS)
def layout(description: bytes) -> Layout:
    """Return the positions of arrays with this description; raise `ProtocolError` if it is malformed."""
    arrays, offset = [], 0
    for name, dtype, shape in _checked(from_json(description)):
        arrays.append(ArrayLocation(name, dtype, shape, offset))
        offset += -(-dtype.itemsize * math.prod(shape) // _ALIGNMENT) * _ALIGNMENT
    return Layout(tuple(arrays), offset)


def _checked(value: Any) -> list[tuple[str, np.dtype[Any], tuple[int, ...]]]:
    try:
        rows = [(str(name), np.dtype(str(dtype)), tuple(shape)) for name, dtype, shape in value]
    except (TypeError, ValueError, SyntaxError):  # NumPy uses Python's parser for some dtypes
        raise ProtocolError("an image's description of its arrays is malformed") from None
    if not 0 < len(rows) <= _MAX_ARRAYS or len({name for name, _, _ in rows}) < len(rows):
        raise ProtocolError("an image has no arrays, too many, or two with the same name")
    for _, dtype, shape in rows:
        if dtype.kind not in _KINDS or dtype.shape or len(shape) > _MAX_AXES:
            raise ProtocolError("an array has an impossible dtype or too many axes")
        if not all(type(length) is int and 0 < length < 2**31 for length in shape):
            raise ProtocolError("an array has an impossible shape")
    return rows


class SlotMemory:
    """A mapping of the shared memory; it is unmapped when the last array in it is freed.

    Args:
        descriptor: the memory's descriptor; the caller may close it afterwards.
    """

    def __init__(self, descriptor: int, slots: int, slot_bytes: int) -> None:
        self.slots, self.slot_bytes = slots, slot_bytes
        self._mapping = mmap.mmap(descriptor, _size_bytes(slots, slot_bytes))

    def write(self, slot: int, layout: Layout, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Clear a slot's mark and copy arrays into the slot."""
        self._mapping[slot] = 0
        for location in layout.arrays:
            self._view(slot, location)[...] = arrays[location.name]

    def read(self, slot: int, layout: Layout) -> dict[str, NDArray[Any]]:
        """Return a slot's arrays as read-only views."""
        arrays = {location.name: self._view(slot, location) for location in layout.arrays}
        for array in arrays.values():
            array.setflags(write=False)
        return arrays

    def mark(self, index: int, runs: bool) -> None:
        """Record whether the image in this slot, or the prompt with this `prompt_mark`, is in a running batch."""
        self._mapping[index] = runs

    def is_marked(self, index: int) -> bool:
        """Return whether the image or prompt runs, as last recorded by `mark`."""
        return bool(self._mapping[index])

    def prompt_mark(self, number: int) -> int:
        """Return the index of the mark of the prompt with this number."""
        return self.slots + number % PROMPT_MARKS

    def _view(self, slot: int, location: ArrayLocation) -> NDArray[Any]:
        start = _marks_bytes(self.slots) + slot * _paged(self.slot_bytes)
        return np.ndarray(location.shape, location.dtype, self._mapping, start + location.offset)


def new_memory(slots: int, slot_bytes: int) -> int:
    """Create zeroed memory of a sealed size and return its descriptor; pages use no memory until they are written."""
    descriptor = os.memfd_create("nameshot-images", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, _size_bytes(slots, slot_bytes))
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return descriptor


def _size_bytes(slots: int, slot_bytes: int) -> int:
    return _marks_bytes(slots) + slots * _paged(slot_bytes)


def _marks_bytes(slots: int) -> int:
    return _paged(slots + PROMPT_MARKS)


def _paged(size_bytes: int) -> int:
    return -(-size_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
